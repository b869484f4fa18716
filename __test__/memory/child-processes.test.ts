// Child processes of a VMM have no guest memory: fork copies neither its page tables nor pinned pages.
import test from 'ava';
import { spawnSync } from 'node:child_process';
import { GuestMemory } from '../../ts/index.ts';

const RAM = 256 << 20;

test('starts a child process without the private memory of the guest', async (t) => {
  const ram = { start: 0n, length: BigInt(RAM), private: true, prefault: true };
  await using memory = await GuestMemory.create({ ram: [ram] });
  const resident = process.memoryUsage.rss();
  t.true(resident > RAM, 'all of it is there');
  memory.write(0n, Uint8Array.of(1));
  // The peak memory of the child, also before it executed the program.
  const { stdout } = spawnSync(process.execPath, ['-p', 'process.resourceUsage().maxRSS'], { encoding: 'utf8' });
  const most = Number(stdout) * 1024;
  t.true(most > 0 && most < resident - RAM / 2, `the child had ${most} bytes of the ${resident} of this process`);
});
