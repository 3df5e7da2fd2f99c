"""Recipe to finished run: the schema, the graph of steps, the store that keeps them, the engine that runs them."""
