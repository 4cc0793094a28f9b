from fastapi import FastAPI

app = FastAPI()


@app.post("/")
async def merge(pair: tuple[str, str]) -> str:
    a, b = pair
    return a + b
