// Loads the native core: the one built in this checkout or copied beside a bundle, or else that of the package for
// this platform. Importing works without a core: everything that uses it then throws an error that names the package.
import { closeSync, existsSync, openSync, readSync } from 'node:fs';
import nodeModule from 'node:module';
import { dirname, isAbsolute, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The platforms that have a package with the native core; npm installs the one that fits. */
const PLATFORMS = ['linux-x64-gnu', 'linux-x64-musl', 'linux-arm64-gnu'];

/** @returns {string} as napi names platforms, such as `linux-x64-gnu` or `darwin-arm64` */
function platformName() {
  const { platform, arch } = process;
  return platform === 'linux' ? `linux-${arch}-${libc()}` : `${platform}-${arch}`;
}

/** The C library of this Node, by the dynamic linker that its first bytes name. Reading them starts no process. */
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

/** The native core, or else the code, message and cause of the error that reports its absence. */
function load() {
  const platform = platformName();
  const name = `@peerdma/binding-${platform}`;
  const binary = `peerdma.${platform}.node`;
  const causes = [];
  for (const attempt of [
    () => loadFor(ownFile(), binary, name),
    // webpack replaces `import.meta.url` by the one of the machine that bundles.
    () => loadFor(process.argv[1], binary, name),
    // In an executable that contains the bundle, neither of the two is a file.
    () => loadBeside(process.execPath, binary),
  ]) {
    try {
      const core = attempt();
      if (core !== undefined) return { core };
    } catch (error) {
      causes.push(error);
    }
  }
  // A core that is there and cannot be loaded matters more than the places that have none.
  const cause = causes.find((error) => error?.code === 'ERR_DLOPEN_FAILED') ?? causes[0];
  return { absence: absenceOf(platform, name, cause) };
}

/**
 * This file, or the bundle that contains it. A bundle in CommonJS form may have only `__filename`. Programs of
 * `node -e` and of `new Worker(program, { eval: true })` have a global one, which is not a path.
 */
function ownFile() {
  try {
    if (isAbsolute(__filename)) return __filename; // webpack answers `typeof __filename` wrongly
  } catch {
    // Not defined in a module.
  }
  return fileURLToPath(import.meta.url);
}

/** Loads the core that lies beside a file, or else the package that the file would load. */
function loadFor(file, binary, name) {
  const core = loadBeside(file, binary);
  if (core !== undefined) return core;
  const require = nodeModule.createRequire(file);
  try {
    return require(name);
  } catch (error) {
    // With pnpm the dependencies of `peerdma` are in no folder that a bundle reaches.
    const owner = resolved(require, 'peerdma/package.json');
    if (owner === undefined) throw error;
    return nodeModule.createRequire(owner)(name);
  }
}

function loadBeside(file, binary) {
  const beside = join(dirname(file), binary);
  return existsSync(beside) ? nodeModule.createRequire(file)(beside) : undefined;
}

function resolved(require, name) {
  try {
    return require.resolve(name);
  } catch {
    return undefined;
  }
}

function absenceOf(platform, name, cause) {
  if (!PLATFORMS.includes(platform)) {
    const message = `the native core of peerdma does not exist for ${platform} (it would be the package ${name}): it runs on ${PLATFORMS.join(', ')}`;
    return { code: 'ERR_UNSUPPORTED_PLATFORM', message, cause };
  }
  const message =
    cause.code === 'MODULE_NOT_FOUND'
      ? `the package ${name}, the native core of peerdma for ${platform}, is not installed: install peerdma with its optional dependencies`
      : `${name}, the native core of peerdma for ${platform}, cannot be loaded: ${cause.message}`;
  return { code: 'ERR_NATIVE_CORE_MISSING', message, cause };
}

const { core, absence } = load();

/**
 * Stands for a class or function of the core that is not available: any use of it throws.
 *
 * @param {{ code: string, message: string, cause?: unknown }} reason
 */
function standIn({ code, message, cause }) {
  const refuse = () => {
    throw Object.assign(new Error(message, { cause }), { name: 'NativeError', code });
  };
  return new Proxy(function () {}, { apply: refuse, construct: refuse, get: refuse });
}

/** The core of a processor without virtual machines has no class for them. */
function machineAbsence() {
  const platform = platformName();
  const message = `virtual machines of KVM do not exist for ${platform}: peerdma/kvm runs on Linux on x86-64`;
  return { code: 'ERR_UNSUPPORTED_PLATFORM', message };
}

const take = (name) => (core === undefined ? standIn(absence) : core[name]);

export const NativeDescriptor = take('NativeDescriptor');
export const NativeEventFd = take('NativeEventFd');
export const NativeEventWatcher = take('NativeEventWatcher');
export const NativeFileBlock = take('NativeFileBlock');
export const NativeFilePool = take('NativeFilePool');
export const NativeIoas = take('NativeIoas');
export const NativeIommufd = take('NativeIommufd');
export const NativeMachine = take('NativeMachine') ?? standIn(machineAbsence());
export const NativeMemoryFile = take('NativeMemoryFile');
export const NativePrivateMemory = take('NativePrivateMemory');
export const NativeReservation = take('NativeReservation');
export const NativeUnixSocket = take('NativeUnixSocket');
export const NativeVfioContainer = take('NativeVfioContainer');
export const NativeVfioDevice = take('NativeVfioDevice');
export const NativeVfioGroup = take('NativeVfioGroup');
export const hostPageSize = take('hostPageSize');
export const memorySettled = take('memorySettled');
