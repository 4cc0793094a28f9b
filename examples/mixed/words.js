'use strict';

/** Two strings as one. */
exports.merge = (a, b) => a + b;

/** An amount of money as people of a locale write it. */
exports.money = (amount, currency = 'EUR', locale = 'en') =>
  new Intl.NumberFormat(locale, { style: 'currency', currency }).format(amount);
