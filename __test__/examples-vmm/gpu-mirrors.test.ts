/**
 * The example VMM mirrors config space in the BARs of GPUs that repeat it there.
 */
import test from 'ava';
import { gpuMirrors } from '../../examples/vmm/devices/gpu-mirrors.ts';
import { nvidiaConfigMirrors } from '../../ts/index.ts';
import { SimulatedDevice } from '../../ts/testing.ts';

function device(vendor: number, classCode: number): SimulatedDevice {
  const ids = { vendor, device: 0x2684, class: classCode };
  return new SimulatedDevice({ bdf: '0000:41:00.0', ids, bars: [{ index: 0, length: 16n << 20n }] });
}

test('VGA controllers of NVIDIA get mirrors, and 3D controllers and other devices none', async (t) => {
  for (const [vendor, classCode, mirrors] of [
    [0x10de, 0x030000, nvidiaConfigMirrors()],
    [0x10de, 0x030200, []],
    [0x10de, 0x040300, []],
    [0x1002, 0x030000, []],
  ] as const) {
    await using one = device(vendor, classCode);
    t.deepEqual(gpuMirrors(one), [...mirrors]);
  }
});
