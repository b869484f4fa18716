// Loads the native core: the one built in this checkout, or else that of the package for this platform. Where there is
// none, importing works all the same, and what uses the core says what is missing.
'use strict';
const { closeSync, existsSync, openSync, readSync } = require('node:fs');
const { join } = require('node:path');

/** What there are packages for; npm installs the one that fits. */
const PLATFORMS = ['linux-x64-gnu', 'linux-x64-musl', 'linux-arm64-gnu'];

/** @returns {string} as napi names platforms, such as `linux-x64-gnu` or `darwin-arm64` */
function platformName() {
  const { platform, arch } = process;
  return platform === 'linux' ? `linux-${arch}-${libc()}` : `${platform}-${arch}`;
}

/** The C library of this Node, by the dynamic linker that its first bytes name: reading them starts nothing. */
function libc() {
  const head = Buffer.alloc(4096);
  try {
    const file = openSync(process.execPath, 'r');
    try {
      readSync(file, head, 0, head.length, 0);
    } finally {
      closeSync(file);
    }
  } catch {
    // Not readable: taken for what nearly all are.
  }
  return head.includes('/ld-musl-') ? 'musl' : 'gnu';
}

/** The native core; or else why it can't be had, in the form of its own errors (native-call.ts). */
function load() {
  const platform = platformName();
  const name = `@peerdma/binding-${platform}`;
  const built = join(__dirname, `peerdma.${platform}.node`);
  try {
    return { core: require(existsSync(built) ? built : name) };
  } catch (cause) {
    return { why: why(platform, name, cause), cause };
  }
}

function why(platform, name, cause) {
  if (!PLATFORMS.includes(platform)) {
    return `ERR_UNSUPPORTED_PLATFORM||||the native core of peerdma does not exist for ${platform} (it would be the package ${name}): it runs on ${PLATFORMS.join(', ')}`;
  }
  if (cause.code === 'MODULE_NOT_FOUND') {
    return `ERR_NATIVE_CORE_MISSING||||the package ${name}, the native core of peerdma for ${platform}, is not installed: install peerdma with its optional dependencies`;
  }
  return `ERR_NATIVE_CORE_MISSING||||${name}, the native core of peerdma for ${platform}, can't be loaded: ${cause.message}`;
}

const { core, why: missing, cause } = load();

/** Stands for a class or function of the core that can't be had: whatever is done with it throws. */
function standIn() {
  const refuse = () => {
    throw new Error(missing, { cause });
  };
  return new Proxy(function () {}, { apply: refuse, construct: refuse, get: refuse });
}

const take = (name) => (core === undefined ? standIn() : core[name]);

// By name and one by one: that is how Node finds what an `import` of this file can name.
exports.NativeEventFd = take('NativeEventFd');
exports.NativeFilePool = take('NativeFilePool');
exports.NativeEventWatcher = take('NativeEventWatcher');
exports.NativeIoas = take('NativeIoas');
exports.NativeIommufd = take('NativeIommufd');
exports.NativeMemoryFile = take('NativeMemoryFile');
exports.NativePrivateMemory = take('NativePrivateMemory');
exports.NativeReservation = take('NativeReservation');
exports.NativeVfioContainer = take('NativeVfioContainer');
exports.NativeVfioDevice = take('NativeVfioDevice');
exports.NativeVfioGroup = take('NativeVfioGroup');
exports.hostPageSize = take('hostPageSize');
exports.memorySettled = take('memorySettled');
