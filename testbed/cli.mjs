// `npm run testbed -- [options] COMMAND`: runs a command in the guest and exits with its status. Imports nothing from
// node_modules, so that it works before `npm ci`.
import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { constants } from 'node:os';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { TestbedError } from './errors.mjs';
import { EXIT_BROKEN, runInGuest } from './guest.mjs';
import { initramfs } from './initramfs.mjs';
import { DEFAULT_KERNEL, KERNELS } from './kernels.mjs';
import { findQemu, hasIgb } from './qemu.mjs';
import { say } from './say.mjs';

const USAGE = `usage: npm run testbed -- [options] COMMAND [ARGUMENT…]

Runs COMMAND as root in a guest with an emulated IOMMU and devices bound to vfio-pci, in this checkout. The guest mounts
all of the host's files read-only. Exits with the command's status, ${String(EXIT_BROKEN)} if the guest broke, or 124
after the timeout.

  --kernel NAME      ${Object.keys(KERNELS).join(', ')} (default ${DEFAULT_KERNEL})
  --timeout SECONDS  the command's time (default 300)
  --memory SIZE      the guest's memory (default 2G)
  --env NAME[=VALUE] sets a variable for COMMAND, or passes on the present value; can be repeated
  --share FOLDER     mounts a folder, writable, as /mnt/share
  --unmapped-interrupts  an IOMMU without interrupt remapping, which VFIO rejects
  --without-iommu    no IOMMU: VFIO makes groups without one (only with a kernel that is built here)
  --address-bits N   an IOMMU that translates addresses of 39 or of 48 bits (default 48)
  --processors N     1 or 2 processors (default 2)
  --thread-each      a host thread for each processor: for a COMMAND that moves no BAR
  --console          shows the guest's console while it runs
  --prepare          only fetches and builds what is missing; without --kernel for every kernel
`;

const OPTIONS = /** @type {const} */ ({
  kernel: { type: 'string' },
  timeout: { type: 'string', default: '300' },
  memory: { type: 'string', default: '2G' },
  env: { type: 'string', multiple: true },
  share: { type: 'string' },
  'unmapped-interrupts': { type: 'boolean', default: false },
  'without-iommu': { type: 'boolean', default: false },
  'address-bits': { type: 'string', default: '48' },
  processors: { type: 'string', default: '2' },
  'thread-each': { type: 'boolean', default: false },
  console: { type: 'boolean', default: false },
  prepare: { type: 'boolean', default: false },
  help: { type: 'boolean', short: 'h', default: false },
});

class UsageError extends Error {}

/**
 * Splits the arguments at the command: the first word that is not an option, or the one after `--`.
 * @param {string[]} args
 */
function parse(args) {
  const { tokens } = parseArgs({ args, options: OPTIONS, strict: false, allowPositionals: true, tokens: true });
  const first = tokens?.find(({ kind }) => kind !== 'option');
  const end = first?.index ?? args.length;
  const command = args.slice(first?.kind === 'option-terminator' ? end + 1 : end);
  try {
    return { command, options: parseArgs({ args: args.slice(0, end), options: OPTIONS }).values };
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

/**
 * @param {readonly string[]} settings `NAME=VALUE`, or `NAME` for the present value in this process
 * @returns {Record<string, string>}
 */
function environment(settings) {
  /** @type {Record<string, string>} */
  const env = {};
  for (const setting of settings) {
    const [, name = '', value] = /^([A-Za-z_][A-Za-z0-9_]*)(?:=([^]*))?$/.exec(setting) ?? [];
    if (name === '') throw new UsageError(`--env ${setting}: not NAME or NAME=VALUE`);
    const passed = value ?? process.env[name];
    if (passed !== undefined) env[name] = passed;
  }
  return env;
}

/**
 * @param {string} name
 */
async function provide(name) {
  const kernel = await KERNELS[name]?.();
  if (kernel === undefined) throw new UsageError(`--kernel ${name}: one of ${Object.keys(KERNELS).join(', ')}`);
  return { kernel, initramfs: await initramfs(kernel) };
}

/** @returns {Promise<number>} the exit status */
async function main() {
  const { command, options } = parse(process.argv.slice(2));
  if (options.help || (command.length === 0 && !options.prepare)) {
    (options.help ? process.stdout : process.stderr).write(USAGE);
    return options.help ? 0 : 2;
  }
  const seconds = Number(options.timeout);
  if (!(seconds > 0)) throw new UsageError(`--timeout ${options.timeout}: not a number of seconds`);
  if (!/^[0-9]+[MG]$/.test(options.memory)) throw new UsageError(`--memory ${options.memory}: not like 2G or 512M`);
  if (!/^(39|48)$/.test(options['address-bits']))
    throw new UsageError(`--address-bits ${options['address-bits']}: 39 or 48`);
  if (!/^[12]$/.test(options.processors)) throw new UsageError(`--processors ${options.processors}: 1 or 2`);
  const env = environment(options.env ?? []);

  const qemu = findQemu();
  if (options.prepare) {
    for (const name of options.kernel === undefined ? Object.keys(KERNELS) : [options.kernel]) {
      const { kernel } = await provide(name);
      say(`${kernel.title}: ready`);
    }
    if (command.length === 0) return 0;
  }
  const share = options.share === undefined ? undefined : resolve(options.share);
  if (share !== undefined && !existsSync(share)) await mkdir(share, { recursive: true });
  const provided = await provide(options.kernel ?? DEFAULT_KERNEL);

  const interrupt = new AbortController();
  let status;
  const end = (/** @type {"SIGINT" | "SIGTERM" | "SIGHUP" | "SIGPIPE"} */ name) => {
    status = 128 + constants.signals[name];
    interrupt.abort();
  };
  for (const name of /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP'])) process.once(name, end);
  // The reader has closed the stream: Node reports an error where another program would receive a signal.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => end('SIGPIPE'));
  const folder = fileURLToPath(new URL('..', import.meta.url)).replace(/(?<=.)\/$/, '');
  const { memory, console: showConsole } = options;
  const result = await runInGuest({
    qemu,
    igb: await hasIgb(qemu),
    ...provided,
    command,
    folder,
    env,
    memory,
    iommu: !options['without-iommu'],
    remapping: !options['unmapped-interrupts'],
    addressBits: Number(options['address-bits']),
    processors: options.processors,
    threadEach: options['thread-each'],
    seconds,
    share,
    showConsole,
    signal: interrupt.signal,
    say,
  });
  return status ?? result;
}

try {
  process.exitCode = await main();
} catch (error) {
  if (error instanceof UsageError) {
    say(error.message);
    process.exitCode = 2;
  } else if (error instanceof TestbedError) {
    say(error.message);
    process.exitCode = EXIT_BROKEN;
  } else throw error;
}
