"""The same model behind other servers, each used as its documentation recommends, and their environments."""
