/**
 * A signal to `npm run` ends the program of its task, too.
 */
import test from 'ava';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, openSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { scratchFolder } from '../support/scratch.ts';
import { until } from '../support/until.ts';

const top = fileURLToPath(new URL('../..', import.meta.url));

test('SIGTERM ends the example VMM and not npm alone', async (t) => {
  const kernel = join(scratchFolder(t), 'kernel');
  t.is(spawnSync('mkfifo', [kernel]).status, 0);
  const openForWriting = (): number | undefined => {
    try {
      return openSync(kernel, constants.O_WRONLY | constants.O_NONBLOCK);
    } catch (error) {
      t.is((error as NodeJS.ErrnoException).code, 'ENXIO', 'there is no reader');
      return undefined;
    }
  };
  const npm = spawn('npm', ['run', 'vmm', '--', '--kernel', kernel], { cwd: top, stdio: 'ignore' });
  t.teardown(() => npm.kill('SIGKILL'));
  let writer: number | undefined;
  await until(() => (writer = openForWriting()) !== undefined, 'the VMM reads its kernel');
  t.teardown(() => closeSync(writer ?? -1)); // a VMM that goes on reads the end of the file
  npm.kill('SIGTERM');
  await once(npm, 'exit');
  const isRead = (): boolean => {
    const probe = openForWriting();
    if (probe !== undefined) closeSync(probe);
    return probe !== undefined;
  };
  await until(() => !isRead(), 'the VMM ends');
});
