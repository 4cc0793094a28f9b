def merge(a: str, b: str) -> str:
    return a + b
