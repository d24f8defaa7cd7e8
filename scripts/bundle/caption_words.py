"""The words of the caption grammar: what stands in images, by kind.

A word list is a text of words with blanks between; `_` joins the parts of a compound (`traffic_light`).
"""

PEOPLE = """
man woman boy girl child kid baby toddler infant teenager adult lady gentleman guy person couple
mother father son daughter brother sister friend family bride groom chef cook baker waiter waitress
bartender farmer rancher cowboy soldier officer policeman policewoman fireman firefighter pilot sailor
captain driver rider cyclist biker motorcyclist skateboarder skater surfer swimmer skier snowboarder
player batter pitcher catcher umpire referee goalie athlete runner jogger dancer singer musician
guitarist drummer artist painter photographer worker vendor shopper customer passenger pedestrian
tourist traveler hiker climber fisherman student teacher doctor nurse patient businessman model
spectator fan crowd team audience crew clown magician king queen prince princess nun priest judge
tennis_player baseball_player soccer_player police_officer construction_worker street_vendor
""".split()

ANIMALS = """
dog cat horse cow sheep goat pig donkey mule pony calf lamb bull ox bison buffalo elephant giraffe
zebra lion lioness tiger leopard cheetah panther bear cub wolf fox deer elk moose antelope gazelle
kangaroo koala panda monkey gorilla chimpanzee ape rabbit bunny hare squirrel chipmunk hamster mouse
rat beaver otter raccoon skunk hedgehog bat bird pigeon dove seagull gull crow raven sparrow robin
parrot peacock flamingo ostrich pelican heron stork crane swan duck duckling goose rooster hen chicken
chick turkey owl eagle hawk falcon vulture penguin seal walrus whale dolphin shark fish goldfish trout
salmon tuna octopus squid jellyfish starfish crab lobster shrimp clam snail turtle tortoise frog toad
lizard gecko iguana snake crocodile alligator camel llama alpaca rhino rhinoceros hippo hippopotamus
bee wasp butterfly moth ant spider beetle ladybug dragonfly grasshopper fly mosquito caterpillar worm
puppy kitten poodle bulldog terrier retriever polar_bear baby_elephant
""".split()

FOOD = """
apple orange banana pear peach plum cherry grape strawberry blueberry raspberry blackberry lemon lime
melon watermelon cantaloupe pineapple mango papaya kiwi coconut avocado tomato potato carrot onion
garlic pepper cucumber pickle lettuce cabbage spinach kale broccoli cauliflower celery asparagus
zucchini squash pumpkin eggplant mushroom olive corn pea bean radish beet turnip ginger herb parsley
basil mint rice pasta noodle spaghetti lasagna pizza sandwich burger hamburger cheeseburger hotdog
sausage bacon ham steak beef pork meat meatball ribs chicken turkey egg omelet pancake waffle toast
bread loaf roll bun bagel croissant muffin cupcake cake pie tart cookie brownie donut doughnut pastry
candy chocolate icing frosting sprinkle cream butter cheese yogurt milk juice coffee tea soda beer wine
water smoothie milkshake soup stew chili curry salad taco burrito nacho tortilla sushi dumpling kebab
fries chips popcorn pretzel cracker cereal oatmeal granola nut peanut almond walnut honey jam jelly
syrup sauce gravy ketchup mustard mayonnaise relish salsa salt sugar spice dip meal breakfast lunch
dinner dessert snack appetizer dish slice topping crust filling hot_dog ice_cream french_fries
cream_cheese peanut_butter orange_juice potato_salad whipped_cream chocolate_cake wedding_cake
birthday_cake fruit vegetable
""".split()

THINGS = """
ball bat glove mitt racket racquet net helmet frisbee kite skateboard surfboard snowboard ski sled
paddle oar canoe_paddle pole hoop goal puck stick club dart target trophy medal whistle
knife fork spoon chopstick plate bowl cup mug glass saucer pitcher jug bottle can jar teapot kettle pot
pan skillet wok spatula ladle whisk tongs grater peeler blender mixer toaster oven stove microwave
refrigerator fridge freezer dishwasher sink faucet tap counter cabinet cupboard drawer shelf pantry
tray napkin tablecloth placemat apron towel sponge soap dispenser bucket mop broom vacuum dustpan
chair table desk couch sofa armchair recliner stool bench bed crib mattress pillow blanket sheet quilt
comforter curtain blind rug carpet mat lamp lantern candle chandelier mirror frame painting picture
poster portrait clock watch vase plant flower bouquet rose tulip daisy sunflower lily dresser
nightstand bookshelf bookcase wardrobe closet ottoman fireplace mantle heater fan radiator
toilet bathtub tub shower urinal bidet toothbrush toothpaste comb brush razor shampoo lotion perfume
hairdryer bathrobe tissue tile
laptop computer monitor screen keyboard mouse printer scanner phone cellphone smartphone telephone
tablet camera camcorder tripod television tv remote controller console speaker headphone microphone
radio stereo record cassette battery charger cord cable wire plug outlet switch bulb flashlight
book notebook magazine newspaper paper letter envelope card map calendar folder binder pen pencil
marker crayon eraser ruler stapler scissors tape glue string rope chain ribbon balloon gift box
package bag backpack purse handbag wallet suitcase briefcase luggage basket crate barrel trunk
hat cap beanie hood scarf shirt blouse sweater sweatshirt hoodie jacket coat vest suit tie bowtie
dress skirt gown costume uniform robe pants jeans shorts leggings sock shoe boot sandal sneaker slipper
heel belt buckle button zipper collar sleeve pocket glasses sunglasses goggles mask wig necklace
bracelet earring ring crown tiara umbrella parasol cane crutch wheelchair stroller
toy doll puppet teddy robot block puzzle dice chess game lego yo-yo drum guitar violin piano trumpet
flute saxophone harp accordion banjo hammer nail screw screwdriver wrench drill saw axe shovel rake hoe
ladder wheelbarrow hose sprinkler lawnmower toolbox anvil anchor wheel tire engine windshield headlight
bumper mirror handlebar pedal saddle bridle harness leash collar cage feeder birdhouse nest egg feather
wing tail horn antler tusk trunk mane paw claw hoof beak fur wool shell skull bone tooth tongue nose
ear eye mouth lip face head hair beard mustache neck shoulder arm elbow hand finger thumb leg knee foot
toe chest back lap skin smile
sign post billboard banner flag statue sculpture monument fountain bench trash_can garbage_can mailbox
hydrant meter parking_meter fire_hydrant stop_sign street_sign traffic_light street_light traffic_cone
cone barrier gate fence railing wall door window roof chimney awning balcony porch deck patio stairs
staircase step escalator elevator ceiling floor column pillar arch tent hammock grill barbecue cooler
thermos telescope microscope globe compass hourglass syringe pill bandage crystal coin money bill key
lock padlock magnet brick log stump plank board pallet hay straw bale fertilizer candlestick ashtray
cigarette pipe lighter match firework torch spear sword shield arrow bow gun rifle cannon bomb rocket
satellite parachute scoreboard podium stage microwave_oven coffee_maker coffee_cup coffee_mug
coffee_table dining_table kitchen_table picnic_table wine_glass wine_bottle water_bottle teddy_bear
baseball_bat baseball_glove tennis_racket tennis_ball soccer_ball hair_dryer cell_phone remote_control
computer_mouse shower_curtain toilet_paper paper_towel paper_bag plastic_bag tote_bag picture_frame
light_bulb light_fixture lamp_shade bird_cage bird_house wire_fence brick_wall stone_wall window_sill
book_shelf office_chair rocking_chair beach_chair flower_pot toaster_oven gas_stove garden_hose
alarm_clock cutting_board ironing_board diaper pacifier bib rattle
""".split()

VEHICLES = """
car truck bus van taxi cab limousine jeep minivan ambulance bicycle bike motorcycle motorbike scooter
moped tricycle unicycle train locomotive trolley tram subway streetcar monorail airplane plane jet
helicopter glider balloon blimp boat ship sailboat yacht canoe kayak raft ferry barge tugboat gondola
submarine speedboat cart wagon carriage chariot sled sleigh tractor bulldozer excavator forklift trailer
tanker pickup firetruck snowmobile fire_truck pickup_truck dump_truck tow_truck garbage_truck
delivery_truck food_truck school_bus tour_bus city_bus passenger_train freight_train steam_engine
train_car race_car police_car sports_car cruise_ship fighter_jet jet_ski golf_cart dirt_bike
""".split()

PLACES = """
street road highway freeway alley lane driveway sidewalk crosswalk intersection corner curb bridge
tunnel overpass parking_lot parking_garage station platform terminal airport runway tarmac hangar dock
pier harbor marina port wharf beach shore coast ocean sea bay lake pond river stream creek waterfall
pool swamp marsh island cliff hill hillside mountain valley canyon slope trail path forest woods jungle
field meadow pasture prairie desert dune farm barn stable ranch orchard vineyard garden greenhouse yard
backyard lawn park playground zoo pen corral enclosure court stadium arena rink track gym field
city town village neighborhood downtown square plaza market store shop mall supermarket bakery deli
restaurant cafe diner bar pub kitchen bathroom bedroom living_room dining_room hallway lobby office
classroom library school church temple cathedral museum theater hotel hospital house home apartment
cabin cottage castle tower skyscraper building warehouse factory garage shed attic basement room
laundry_room hotel_room waiting_room conference_room tennis_court basketball_court baseball_field
soccer_field football_field baseball_diamond skate_park train_station bus_stop gas_station ski_slope
ski_lift city_street country_road dirt_road train_track railroad_track grass snow sand mud dirt gravel
ice rain fog sky cloud sun moon star sunset sunrise rainbow shadow tree bush shrub branch leaf rock
stone boulder wave puddle cage display airport_runway street_corner
""".split()

ABSTRACT = """
air water background foreground distance front middle center side top bottom edge end night day
daylight sunlight light dark weather winter summer spring afternoon morning evening
""".split()

EVENTS = """
game match race parade party wedding ceremony concert festival conference meeting show contest
competition tournament performance picnic event trick jump ride walk nap bath swim picture photo
photograph selfie video pose
""".split()

GROUPS = """
group bunch herd flock pack pile stack row line set collection variety assortment pair couple
number crowd swarm cluster bouquet basket bowl plate box bag tray platter slice piece glass cup bottle
cart shelf lot display arrangement
""".split()

VIEWS = """
photo picture view image close-up closeup shot photograph painting drawing scene display portrait
""".split()

UNCOUNTED = frozenset(
    """grass snow sand mud dirt gravel ice rain fog water air coffee tea milk juice beer wine soda rice
    pasta spaghetti bread toast butter cheese cream honey jam jelly syrup sauce gravy ketchup mustard
    mayonnaise relish salsa salt sugar spice meat beef pork ham bacon broccoli cauliflower lettuce
    spinach kale celery garlic ginger corn popcorn cereal oatmeal granola soup chili luggage money hair
    fur wool hay straw paper tape glue string soap shampoo lotion perfume toothpaste furniture traffic
    asparagus cabbage sunlight daylight icing frosting fertilizer parsley basil mint chess skin
    toilet_paper ice_cream peanut_butter cream_cheese orange_juice whipped_cream potato_salad
    cantaloupe basketball downtown sushi""".split()
)
PLURAL_ONLY = frozenset(
    """glasses sunglasses goggles scissors pants jeans shorts leggings tongs fries chips ribs stairs
    woods french_fries dice headphones skis grapes cherries noodles""".split()
)
IRREGULAR = {
    "man": "men", "woman": "women", "child": "children", "person": "people", "foot": "feet",
    "tooth": "teeth", "goose": "geese", "mouse": "mice", "ox": "oxen", "sheep": "sheep",
    "fish": "fish", "deer": "deer", "moose": "moose", "bison": "bison", "elk": "elk",
    "shrimp": "shrimp", "squid": "squid", "knife": "knives", "leaf": "leaves", "loaf": "loaves",
    "wolf": "wolves", "calf": "calves", "shelf": "shelves", "hoof": "hooves", "scarf": "scarves",
    "policeman": "policemen", "policewoman": "policewomen", "fireman": "firemen",
    "fisherman": "fishermen", "businessman": "businessmen", "gentleman": "gentlemen",
    "tomato": "tomatoes", "potato": "potatoes", "mango": "mangoes", "cheese": "cheeses",
    "mosquito": "mosquitoes", "bookshelf": "bookshelves", "lioness": "lionesses",
}  # fmt: skip

ADJECTIVES = """
white black red blue green yellow orange brown purple pink gray grey tan beige golden silver dark light
bright colorful striped spotted plaid large big small little tiny huge giant tall short long wide narrow
thin thick fat round square old young new vintage antique modern rusty dirty clean wet dry muddy dusty
snowy sandy grassy rocky cloudy sunny rainy foggy clear calm rough busy crowded empty full open closed
broken wooden metal plastic ceramic metallic brick stone leather fluffy furry fuzzy hairy bald shaggy
curly cute adorable beautiful pretty ugly happy sad angry sleepy tired hungry smiling sleeping
fresh ripe raw cooked grilled fried baked frozen hot cold warm spicy sweet delicious tasty healthy
colored wild adult male female lone single several many other various different same fancy elegant
simple plain ornate decorative outdoor indoor urban rural tropical asian public private professional
toy stuffed parked abandoned lit shiny blurry wooden double-decker stainless bare lush steep shallow
deep high low nearby distant overhead upside
""".split()
NUMBERS = "two three four five six seven eight nine ten twelve".split()

# verbs of what is seen: base, -ing, -s, past participle
VERBS_WITH_OBJECT = """
ride riding rides ridden|hold holding holds held|carry carrying carries carried|eat eating eats eaten|
throw throwing throws thrown|catch catching catches caught|hit hitting hits hit|kick kicking kicks kicked|
swing swinging swings swung|wear wearing wears worn|pull pulling pulls pulled|push pushing pushes pushed|
drive driving drives driven|fly flying flies flown|cut cutting cuts cut|slice slicing slices sliced|
cook cooking cooks cooked|prepare preparing prepares prepared|serve serving serves served|
drink drinking drinks drunk|use using uses used|read reading reads read|watch watching watches watched|
walk walking walks walked|feed feeding feeds fed|pet petting pets petted|brush brushing brushes brushed|
wash washing washes washed|paint painting paints painted|play playing plays played|
chase chasing chases chased|bite biting bites bitten|lick licking licks licked|
cross crossing crosses crossed|climb climbing climbs climbed|jump jumping jumps jumped|
tow towing tows towed|load loading loads loaded|open opening opens opened|touch touching touches touched|
hug hugging hugs hugged|kiss kissing kisses kissed|photograph photographing photographs photographed|
sell selling sells sold|buy buying buys bought|show showing shows shown|fix fixing fixes fixed|
pour pouring pours poured|grab grabbing grabs grabbed|balance balancing balances balanced|
guard guarding guards guarded|follow following follows followed|steer steering steers steered
"""
VERBS_ALONE = """
sit sitting sits|stand standing stands|walk walking walks|run running runs|lie lying lies|lay laying lays|
sleep sleeping sleeps|rest resting rests|graze grazing grazes|swim swimming swims|fly flying flies|
surf surfing surfs|ski skiing skis|skate skating skates|skateboard skateboarding skateboards|
wait waiting waits|pose posing poses|lean leaning leans|hang hanging hangs|float floating floats|
drive driving drives|travel traveling travels|move moving moves|perch perching perches|
smile smiling smiles|look looking looks|stare staring stares|gather gathering gathers|
play playing plays|dance dancing dances|jump jumping jumps|crouch crouching crouches|
kneel kneeling kneels|bend bending bends|stop stopping stops|park parking parks|roll rolling rolls|
fall falling falls|drink drinking drinks|eat eating eats|land landing lands|sail sailing sails|
work working works|stretch stretching stretches|race racing races|turn turning turns
"""
STATES = """
parked seated covered filled topped decorated surrounded lined stacked placed displayed arranged
attached mounted tied chained locked loaded painted dressed perched piled served set made crowded
gathered framed lit flooded
""".split()
PREPOSITIONS = """
on in at near under behind beside above below over by against inside outside across through along
around between beneath underneath past toward towards with into down up off onto
""".split()
