"""The bundled small models: weights, configurations and cards."""
