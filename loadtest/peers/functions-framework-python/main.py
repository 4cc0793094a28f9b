import functions_framework
from flask import jsonify


@functions_framework.http
def merge(request):
    a, b = request.get_json()
    return jsonify(a + b)
