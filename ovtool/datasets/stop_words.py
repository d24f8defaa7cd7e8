"""Nouns of captions that name no region: `mine-pairs` leaves them out unless --no-stop is given."""

STOP_WORDS = frozenset(
    """
    photo photograph picture image view shot closeup close scene snapshot selfie pose
    front back side top bottom middle center centre left right end rear inside outside interior
    exterior background foreground distance direction
    group bunch couple pair lot number set row series variety assortment collection array
    selection amount piece part kind type sort bit plenty rest half dozen
    day night daytime nighttime morning afternoon evening noon dusk dawn time moment hour minute
    second week month year season weather
    air midair use way thing something someone somebody anything anyone everything everyone nothing
    one other stuff item object area place spot space position condition style shape size color
    colour look name fun help turn attempt action activity motion movement preparation
    case fact idea reason example
    white black red blue green yellow brown gray grey pink purple
    """.split()
)
