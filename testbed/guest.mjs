// One guest, from its start to its end: boots, runs a command, copies its output, and never exceeds its timeout.
import { spawn } from 'node:child_process';
import { closeSync, existsSync, openSync } from 'node:fs';
import { mkdir, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { commandScript } from './command.mjs';
import { findings, lastLines, textOf } from './console.mjs';
import { Follower } from './follow.mjs';
import { qemuArguments } from './qemu.mjs';

/** The exit statuses of a run without a status of the command. It timed out, or the guest broke. */
export const EXIT_TIMEOUT = 124;
export const EXIT_BROKEN = 125;

/** Other tests run at the same time: a boot takes 4 s on an idle machine. */
const BOOT_SECONDS = 300;
const POWEROFF_SECONDS = 20;
const TAIL_LINES = 40;
const POLL_MILLISECONDS = 25;

/**
 * @typedef {object} Run
 * @property {string} qemu the path of QEMU
 * @property {boolean} igb whether the machine has an igb
 * @property {import("./kernels.mjs").Kernel} kernel
 * @property {string} initramfs
 * @property {readonly string[]} command
 * @property {string} folder the folder of the host in which the command runs
 * @property {Readonly<Record<string, string>>} env
 * @property {string} memory
 * @property {boolean} iommu whether the machine has an IOMMU
 * @property {boolean} remapping whether the IOMMU remaps interrupts
 * @property {number} addressBits the width of the addresses that the IOMMU translates
 * @property {string} processors the number of processors
 * @property {boolean} threadEach whether a separate thread emulates each processor
 * @property {number} seconds the timeout of the command
 * @property {string | undefined} share
 * @property {boolean} showConsole
 * @property {AbortSignal} signal ends the guest
 * @property {(line: string) => void} say
 */

/**
 * Runs a command in a new guest.
 *
 * @param {Run} run
 * @returns {Promise<number>} the command's exit status, {@link EXIT_TIMEOUT} or {@link EXIT_BROKEN}
 */
export async function runInGuest(run) {
  const control = await mkdtemp(join(tmpdir(), 'peerdma-guest-'));
  try {
    await prepareControl(control, run);
    return await boot(control, run);
  } finally {
    await rm(control, { recursive: true, force: true });
  }
}

/**
 * @param {string} control
 * @param {Run} run
 */
async function prepareControl(control, { command, folder, kernel, env }) {
  await writeFile(
    join(control, 'command.sh'),
    commandScript(command, { folder, kernel: kernel.name, image: kernel.image, env }),
  );
  await writeFile(join(control, 'visible'), `${folder}\n${dirname(process.execPath)}\n${dirname(kernel.image)}\n`);
  // Test runners write there; the guest mounts a tmpfs over it, which requires an existing folder.
  const scratch = join(folder, 'node_modules/.cache');
  if (existsSync(dirname(scratch))) {
    // In a read-only checkout, the command must work without it.
    await mkdir(scratch, { recursive: true }).catch(() => {});
    if (existsSync(scratch)) await writeFile(join(control, 'scratch'), `${scratch}\n`);
  }
  await writeFile(join(control, 'nvme.img'), '');
  await truncate(join(control, 'nvme.img'), 64 << 20);
}

/**
 * @param {string} control
 * @param {Run} run
 */
async function boot(control, run) {
  const begun = performance.now();
  const guest = startQemu(control, run);
  const path = (/** @type {string} */ name) => join(control, name);
  const followers = [
    new Follower(path('stdout'), process.stdout),
    new Follower(path('stderr'), process.stderr),
    ...(run.showConsole ? [new Follower(path('console'), process.stderr, { withoutReturns: true })] : []),
  ];
  /** @type {string | undefined} the reason for a missing status */
  let ended;
  let deadline = begun + BOOT_SECONDS * 1000;
  let what = `has not booted within ${BOOT_SECONDS} s`;
  let up = false;
  try {
    // The guest writes the status before it powers off, and the command's output before the status: so they are
    // checked in the opposite order.
    for (;;) {
      const gone = guest.gone();
      if (existsSync(path('status'))) break;
      if (run.signal.aborted) return EXIT_BROKEN;
      if (gone !== undefined) {
        ended = `ended without a status (${gone})`;
        break;
      }
      if (!up && existsSync(path('up'))) {
        up = true;
        const now = performance.now();
        run.say(`${run.kernel.title}: up after ${((now - begun) / 1000).toFixed(1)} s`);
        deadline = now + run.seconds * 1000;
        what = `command has not ended within ${run.seconds} s`;
      }
      if (performance.now() > deadline) {
        await guest.end(0);
        for (const follower of followers) await follower.finish();
        await report(control, run.say, what);
        return EXIT_TIMEOUT;
      }
      for (const follower of followers) await follower.pump();
      await sleep(POLL_MILLISECONDS);
    }
    await guest.end(ended === undefined ? POWEROFF_SECONDS : 0);
    for (const follower of followers) await follower.finish();
    if (ended !== undefined) {
      await report(control, run.say, (await textOf(path('failure'))).trim() || ended);
      return EXIT_BROKEN;
    }
    return await verdict(control, run.say);
  } finally {
    await guest.end(0);
  }
}

/**
 * @param {string} control
 * @param {Run} run
 */
function startQemu(control, { kernel, ...run }) {
  const log = openSync(join(control, 'qemu.log'), 'w');
  // The guest ends with this process, however that ends.
  const words = ['--pdeathsig', 'KILL', run.qemu, ...qemuArguments({ ...run, image: kernel.image, control })];
  const child = spawn('setpriv', words, { stdio: ['ignore', log, log] });
  closeSync(log);
  /** @type {string | undefined} */
  let gone;
  const exit = new Promise((resolve) => {
    child.once('error', (error) => resolve((gone = error.message)));
    child.once('exit', (code, signal) =>
      resolve((gone = signal === null ? `QEMU's exit status is ${code}` : `QEMU got ${signal}`)),
    );
  });
  const kill = () => void (gone === undefined && child.kill('SIGKILL'));
  return {
    gone: () => gone,
    kill,
    /** Waits for it to end by itself, then kills it. @param {number} seconds */
    async end(seconds) {
      const timer = setTimeout(kill, seconds * 1000);
      await exit;
      clearTimeout(timer);
    },
  };
}

/**
 * Explains a missing status, with the available output.
 *
 * @param {string} control
 * @param {(line: string) => void} say
 * @param {string} why
 */
async function report(control, say, why) {
  say(`the guest: ${why}`);
  const qemu = lastLines(await textOf(join(control, 'qemu.log')), TAIL_LINES);
  if (qemu !== '') say(`QEMU wrote:\n${qemu}`);
  say(`the last lines of its console:\n${lastLines(await textOf(join(control, 'console')), TAIL_LINES)}`);
}

/**
 * Returns the command's status, unless the kernel reported a fatal problem: then no result counts.
 *
 * @param {string} control
 * @param {(line: string) => void} say
 */
async function verdict(control, say) {
  const status = Number.parseInt(await textOf(join(control, 'status')), 10);
  // The log that the guest saved, and the console, which continues after it and exists without it.
  const logs = await Promise.all(['kernel.log', 'console'].map((name) => textOf(join(control, name))));
  const { fatal, suspect } = findings(logs.join('\n'));
  for (const line of suspect.slice(0, 2)) say(`notice: the kernel reports: ${line}`);
  if (fatal.length === 0 && status >= 0) return status;
  await report(control, say, `its kernel failed: ${fatal[0] ?? 'the status is not a number'}`);
  return status > 0 ? status : EXIT_BROKEN;
}
