// Prints the files of a /sys that readHost() reads, as text: `node record.mjs [/sys]`. `expand.ts` makes a folder of
// the text. Run it as root, or as a plain user to record what the kernel shows to one. It needs nothing but Node.
import { lstatSync, readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';

const root = process.argv[2] ?? '/sys';
const DEVICE_FILES =
  /^(class|vendor|device|subsystem_vendor|subsystem_device|revision|resource|config|driver|driver_override|iommu_group|iommu|physfn|virtfn\d+|sriov_totalvfs|sriov_numvfs|numa_node|power_state|reset|reset_method|(?:current|max)_link_(?:speed|width))$/;

/** @param {string} path */
const names = (path) => {
  try {
    return readdirSync(join(root, path)).sort();
  } catch {
    return [];
  }
};

/** Bytes without their zeros: `256 0:86800000 34:40`. @param {Uint8Array} bytes */
const packed = (bytes) => {
  const parts = [];
  for (let at = 0; at < bytes.length; at++) {
    if (bytes[at] === 0) continue;
    let end = at + 1;
    while (end < bytes.length && bytes.subarray(end, end + 3).some((byte) => byte !== 0)) end++;
    parts.push(`${at.toString(16)}:${Buffer.from(bytes.subarray(at, end)).toString('hex')}`);
    at = end;
  }
  return [bytes.length, ...parts].join(' ');
};

/** Addresses without their zeros, `-` for a line that has nothing. @param {string} text */
const resources = (text) =>
  text
    .split('\n')
    .map((row) => (/^(0x0+ ?)+$/.test(row) ? '-' : row.replaceAll(/0x0+(?=[0-9a-f])/g, '0x')))
    .join('\n');

/** @param {string} path @param {string} name what to call it */
const line = (path, name) => {
  try {
    const full = join(root, path);
    const stat = lstatSync(full);
    if (stat.isSymbolicLink()) return `${name} -> ${readlinkSync(full)}`;
    if (!stat.isFile()) return `${name}/`;
    if (name === 'reset') return `${name} =`;
    const bytes = readFileSync(full);
    if (name === 'config') return `${name} : ${packed(bytes)}`;
    const text = bytes.toString('utf8').trim();
    return `${name} = ${(name === 'resource' ? resources(text) : text).replaceAll('\n', '\\n')}`;
  } catch {
    return undefined; // it cannot be read by this user
  }
};

/** @param {string} folder @param {(string | undefined)[]} lines */
const section = (folder, lines) => console.log(`[${folder}]\n${lines.filter(Boolean).join('\n')}\n`);

for (const address of names('bus/pci/devices')) {
  const folder = `bus/pci/devices/${address}`;
  const link = readlinkSync(join(root, folder));
  const files = names(folder)
    .filter((name) => DEVICE_FILES.test(name))
    .map((name) => line(`${folder}/${name}`, name));
  const vfio = names(`${folder}/vfio-dev`).map((name) => `vfio-dev/${name}/`);
  section(link.replace(/^(\.\.\/)+/, ''), [...files, ...vfio]);
  section('bus/pci/devices', [`${address} -> ${link}`]);
}
for (const group of names('kernel/iommu_groups')) {
  const folder = `kernel/iommu_groups/${group}`;
  section(folder, [
    ...['type', 'reserved_regions'].map((name) => line(`${folder}/${name}`, name)),
    ...names(`${folder}/devices`).map((name) => line(`${folder}/devices/${name}`, `devices/${name}`)),
  ]);
}
for (const iommu of names('class/iommu')) {
  const folder = `class/iommu/${iommu}`;
  const registers = ['intel-iommu', 'amd-iommu'].flatMap((kind) =>
    names(`${folder}/${kind}`).map((name) => line(`${folder}/${kind}/${name}`, `${kind}/${name}`)),
  );
  section(folder, [
    ...registers,
    ...names(`${folder}/devices`).map((name) => line(`${folder}/devices/${name}`, `devices/${name}`)),
  ]);
}
const modalias = line('devices/system/cpu/modalias', 'modalias');
if (modalias !== undefined) section('devices/system/cpu', [modalias.replace(/:feature:.*/, ':feature:')]);
