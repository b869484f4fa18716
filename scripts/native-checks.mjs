// Runs the native core with AddressSanitizer, with Miri if it is installed, and with fuzzing.
//
//   node scripts/native-checks.mjs            AddressSanitizer and Miri
//   node scripts/native-checks.mjs asan|miri  one of them
//   node scripts/native-checks.mjs fuzz       a minute for each fuzz target; needs cargo-fuzz (fuzz/README.md)
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { run, say, top } from './command.mjs';
import { Count } from './count.mjs';
import { MIRI, MIRI_INSTALL, hasMiri } from './miri.mjs';

/** The standard library of this target includes the runtime of AddressSanitizer. Stable toolchains have it, too. */
const TARGET = 'x86_64-unknown-linux-gnu';
/**
 * Integration tests that do not run with the sanitizer. They use up the address space or the memory mappings, which it
 * needs, or count the resources of the process, which include its own.
 */
const NOT_SANITIZED = ['kernel_limit', 'leaks', 'mapping_limit', 'widths'];
/** Unit tests that Miri cannot run. They use memfds, fixed addresses, `mremap` or /proc, and no other unsafe code. */
const NOT_INTERPRETED = [
  'space_test',
  'memory::moves_test',
  'memory::fork_test',
  'memory::dropper_test',
  'memory::discard',
  'memory::leasing',
  'memory::budget',
  'memory::fault_in',
  'memory::file_pages',
  'memory::populate',
  'memory::view',
  'memory::pool_test',
  'vfio::unmap_test',
  'vfio::reset_test',
  'vfio::migration_test',
  'vfio::unclosed_test',
  'iommufd::unclosed_test',
  'iommufd::unmap_test',
  'kvm::cpuid', // the flexible arrays of kvm-bindings, as in power_on
  'kvm::power_on',
  'kvm::gate', // signals
  'kvm::memory_error_test',
  'kvm::slots_test',
];
/**
 * Random tests of safe, single-threaded code, in which Miri finds nothing. They took most of its time, like the
 * integration tests of parsers (`kernel_data`). `cargo test` and AddressSanitizer run them with more cases.
 */
const SAFE = [
  'memory::extent_test::pieces_cover_the_memory_and_locate_each_byte',
  'memory::extent_test::records_match_the_mappings',
  'range_list::tests::matches_a_btree_map',
  'vfio::config_space::tests::accepts_any_config_space',
];
/** Tests that need KVM are ignored by default. */
export const WITH_KVM = existsSync('/dev/kvm') ? ['--include-ignored'] : [];
const FUZZ_TARGETS = ['container_info', 'region_info'];
const FUZZ_SECONDS = 60;

/**
 * Runs the tests of the core with AddressSanitizer. It finds leaks and accesses to memory that is not allocated. Debug
 * assertions, overflow checks and the precondition checks of the standard library are on, as in any `cargo test`.
 *
 * @param {Count} outcome
 * @param {(text: string) => void} [write] receives the output
 */
export async function addressSanitizer(outcome, write = toTerminal) {
  const tests = readdirSync(join(top, 'crates/core/tests'))
    .filter((name) => name.endsWith('.rs'))
    .map((name) => name.slice(0, -'.rs'.length))
    .filter((name) => !NOT_SANITIZED.includes(name));
  await cargoTest(
    outcome,
    'AddressSanitizer',
    ['test', '--target', TARGET, '--target-dir', 'target/asan', '--lib', ...tests.flatMap((name) => ['--test', name])],
    WITH_KVM,
    // RUSTC_BOOTSTRAP makes the stable compiler accept the unstable flag.
    { RUSTC_BOOTSTRAP: '1', RUSTFLAGS: '-Zsanitizer=address' },
    write,
  );
}

/**
 * Runs unit tests with Miri, which finds undefined behaviour and data races.
 *
 * @param {Count} outcome
 * @param {(text: string) => void} [write] receives the output
 */
export async function miri(outcome, write = toTerminal) {
  if (!hasMiri()) {
    write(`[peerdma] skipped: no Miri (${MIRI_INSTALL.join(' ')})\n`);
    outcome.add(0, 0, 1);
    return;
  }
  const command = [...MIRI, 'test', '--target-dir', 'target/miri'];
  const env = { MIRIFLAGS: '-Zmiri-disable-isolation -Zmiri-strict-provenance', PROPTEST_CASES: '2' };
  const skips = [...NOT_INTERPRETED, ...SAFE].flatMap((name) => ['--skip', name]);
  await cargoTest(outcome, 'Miri', [...command, '--lib'], skips, env, write);
}

/**
 * Fuzzes the parsers of kernel data, starting from the corpus. Stores new inputs below `target`, not in the corpus.
 *
 * @param {Count} outcome
 */
export async function fuzz(outcome) {
  for (const target of FUZZ_TARGETS) {
    const found = `target/fuzz-corpus/${target}`;
    mkdirSync(join(top, found), { recursive: true });
    const limits = [`-max_total_time=${FUZZ_SECONDS}`, '-max_len=512', '-print_final_stats=1'];
    const args = ['fuzz', 'run', target, found, `fuzz/corpus/${target}`, '--', ...limits];
    const status = await run('cargo', args, { env: { RUSTC_BOOTSTRAP: '1' } });
    outcome.add(status === 0 ? 1 : 0, status === 0 ? 0 : 1, 0);
  }
}

/**
 * @param {Count} outcome
 * @param {string} what
 * @param {string[]} command arguments of cargo
 * @param {string[]} args arguments of the tests
 * @param {Record<string, string>} env
 * @param {(text: string) => void} [write] receives the output
 */
async function cargoTest(outcome, what, command, args, env, write = toTerminal) {
  write(`[peerdma] ${what} …\n`);
  const seen = outcome.total;
  const began = performance.now();
  const all = [...command, '--quiet', '-p', 'peerdma-core', '--no-fail-fast', '--', ...args];
  const status = await run('cargo', all, {
    env,
    write,
    onLine: (line) => {
      const result = /^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored/.exec(line);
      if (result !== null) outcome.add(Number(result[1]), Number(result[2]), Number(result[3]));
    },
  });
  outcome.require(what, status, outcome.total - seen);
  const seconds = ((performance.now() - began) / 1000).toFixed(0);
  write(`[peerdma] ${what}: ${outcome.total - seen} tests, ${seconds} s\n`);
}

function toTerminal(text) {
  process.stderr.write(text);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const checks = { asan: addressSanitizer, miri, fuzz };
  const names = process.argv.length > 2 ? process.argv.slice(2) : ['asan', 'miri'];
  const unknown = names.filter((name) => !Object.hasOwn(checks, name));
  if (unknown.length > 0) {
    say(`unknown check ${unknown.join(', ')}. Name one of ${Object.keys(checks).join(', ')}.`);
    process.exitCode = 2;
  } else {
    const count = new Count();
    for (const name of names) await checks[name](count);
    process.exitCode = count.close();
  }
}
