"""How does a request become a film? The request, the plan, what is read, the stages, and what comes out."""
