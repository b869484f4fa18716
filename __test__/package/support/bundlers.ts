/**
 * Bundlers as users run them: each makes one file of a program that imports the package.
 */
import { path } from './packages.ts';
import type { Outcome, Project } from './project.ts';

/** A bundler with one form of output. */
export interface Bundler {
  readonly name: string;
  /** The bundle, below the project. */
  readonly output: string;
  /** Bundles `program.js`. */
  bundle(project: Project): Promise<Outcome>;
}

const tool = (name: string): string => path(`node_modules/.bin/${name}`);

function esbuild(format: 'esm' | 'cjs', output: string): Bundler {
  const options = ['--bundle', '--platform=node', '--target=node20', '--log-level=error'];
  const bundle = (project: Project): Promise<Outcome> =>
    project.run(tool('esbuild'), 'program.js', ...options, `--format=${format}`, `--outfile=${output}`);
  return { name: `esbuild (${format})`, output, bundle };
}

function rollup(format: 'es' | 'cjs', output: string): Bundler {
  const plugin = (name: string): string => path(`node_modules/@rollup/plugin-${name}/dist/es/index.js`);
  const config = `
    import resolve from '${plugin('node-resolve')}';
    import commonjs from '${plugin('commonjs')}';
    export default {
      input: 'program.js',
      external: [/^node:/],
      plugins: [resolve(), commonjs()],
      output: { file: '${output}', format: '${format}' },
    };
  `;
  const bundle = (project: Project): Promise<Outcome> => {
    project.write('rollup.config.js', config);
    return project.run(tool('rollup'), '--config', '--silent');
  };
  return { name: `rollup (${format})`, output, bundle };
}

function webpack(format: 'module' | 'commonjs', output: string): Bundler {
  const options = { entry: './program.js', mode: 'development', devtool: false, target: 'node20' };
  const file = { path: '@', filename: output };
  const esm = { experiments: { outputModule: true }, output: { ...file, module: true, chunkFormat: 'module' } };
  const config = { ...options, ...(format === 'module' ? esm : { output: file }) };
  const program = `
    import webpack from '${path('node_modules/webpack/lib/index.js')}';
    const config = ${JSON.stringify(config)};
    config.output.path = process.cwd();
    webpack(config, (error, stats) => {
      if (error) throw error;
      if (stats.hasErrors() || stats.hasWarnings()) throw new Error(stats.toString('errors-warnings'));
    });
  `;
  const bundle = (project: Project): Promise<Outcome> => {
    project.write('webpack.js', program);
    return project.run('node', 'webpack.js');
  };
  return { name: `webpack (${format})`, output, bundle };
}

export const bundlers: readonly Bundler[] = [
  esbuild('esm', 'esbuild.mjs'),
  esbuild('cjs', 'esbuild.cjs'),
  rollup('es', 'rollup.mjs'),
  rollup('cjs', 'rollup.cjs'),
  webpack('module', 'webpack.mjs'),
  webpack('commonjs', 'webpack.cjs'),
];
