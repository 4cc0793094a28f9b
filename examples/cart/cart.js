'use strict';

/** Thrown when the shop has fewer pieces than the cart asks for. */
class OutOfStock extends Error {
  constructor(sku, wanted, left) {
    super(`${wanted} x ${sku} wanted, ${left} left`);
    this.name = 'OutOfStock';
  }
}

/** The price of all items in cents; tax is a fraction, such as 0.19. */
exports.total = (items, tax = 0) => {
  const net = items.reduce((sum, { price, quantity = 1 }) => sum + price * quantity, 0);
  return Math.round(net * (1 + tax));
};

/** The cart with one item more; the same item twice adds up. */
exports.add = (items, item) => {
  const same = items.find(({ sku }) => sku === item.sku);
  if (!same) return [...items, { quantity: 1, ...item }];
  const quantity = same.quantity + (item.quantity ?? 1);
  return items.map((other) => (other === same ? { ...same, quantity } : other));
};

/** Reserves every item or none; throws OutOfStock. */
exports.reserve = async (items, stock) => {
  for (const { sku, quantity } of items) {
    const left = stock[sku] ?? 0;
    if (left < quantity) throw new OutOfStock(sku, quantity, left);
  }
  const taken = items.map(({ sku, quantity }) => [sku, stock[sku] - quantity]);
  return { ...stock, ...Object.fromEntries(taken) };
};
