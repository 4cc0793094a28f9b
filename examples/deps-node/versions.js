'use strict';

const semver = require('semver');

/** Whether a version is in a range, such as ^1.2. */
exports.satisfies = (version, range) => semver.satisfies(version, range);

/** The newest of the versions that is in the range, or null. */
exports.newest = (versions, range = '*') => semver.maxSatisfying(versions, range);

/** The next version after a major, minor or patch change. */
exports.bump = (version, part = 'patch') => {
  const next = semver.inc(version, part);
  if (next === null) throw new RangeError(`cannot bump the ${part} of ${version}`);
  return next;
};
