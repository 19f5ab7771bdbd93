"""Drawing answers from vLLM servers: what talks to them, and what runs beside them."""
