from flask import Flask, jsonify, request

app = Flask(__name__)


@app.post("/")
def merge():
    a, b = request.get_json()
    return jsonify(a + b)
