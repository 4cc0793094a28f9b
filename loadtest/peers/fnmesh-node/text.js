exports.merge = (a, b) => a + b;
