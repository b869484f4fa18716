/**
 * The time of an import of each sub-path in a new process, in pairs with an import of `node:fs`.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { type Figure, formatValues, median } from './measure.ts';

const PAIRS = 15;
/** Milliseconds. */
const GOAL = 50;
const SUB_PATHS = ['index', 'host', 'inspect', 'driver', 'testing', 'kvm'];

/** The top of the checkout: this file is compiled to `target/js/bench`. */
const top = new URL('../../../', import.meta.url);

/** Milliseconds of the clock and of the processors. */
interface Duration {
  readonly elapsed: number;
  readonly cpu: number;
}

/** Measures the bundles that are published: they are built here. */
export async function importTime(): Promise<Figure[]> {
  const { compilePackage } = (await import(new URL('scripts/release/packages.mjs', top).href)) as {
    compilePackage(out: string): Promise<void>;
  };
  const out = fileURLToPath(new URL('target/import-time', top));
  await compilePackage(out);
  return SUB_PATHS.map((name) => figureOf(name, `${out}/${name}.js`));
}

function figureOf(name: string, file: string): Figure {
  const pairs = Array.from({ length: PAIRS }, () => [importIn('node:fs'), importIn(file)] as const);
  const difference = (of: keyof Duration): number => median(pairs.map(([base, taken]) => taken[of] - base[of]));
  const elapsed = difference('elapsed');
  return {
    name: `import of ${name === 'index' ? 'peerdma' : `peerdma/${name}`} beyond node:fs: elapsed / CPU time`,
    measured: formatValues([elapsed, difference('cpu')], 0, ' ms'),
    goal: `≤ ${GOAL} ms`,
    met: elapsed <= GOAL,
  };
}

/** Imports a module in a new process. */
function importIn(specifier: string): Duration {
  const program = `
    const [begin, before] = [performance.now(), process.cpuUsage()];
    await import(${JSON.stringify(specifier)});
    const [elapsed, { user, system }] = [performance.now() - begin, process.cpuUsage(before)];
    console.log(JSON.stringify({ elapsed, cpu: (user + system) / 1000 }));`;
  const { stdout, stderr, status } = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(stderr);
  return JSON.parse(stdout) as Duration;
}
