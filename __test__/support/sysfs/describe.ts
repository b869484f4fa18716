/**
 * Describes a machine in a few lines, as text for expand.ts. A line is a host bridge or a function, indented below the
 * bridge above it:
 *
 *     cpu intel 6
 *     iommu dmar0 intel 48
 *     host 0000:00 iommu=dmar0
 *       01.0 8086:352a root-port bus=01-04 acs=SrcValid,ReqRedir link=32x16 group=1
 *         00.0 10de:2330 endpoint class=030200 bar0=mem64:16M@0x20000000000 driver=vfio-pci group=9
 *
 * A function: DEVICE.FUNCTION (on the bus below its bridge) or BUS:DEVICE.FUNCTION, VENDOR:DEVICE, the type of port
 * (without one it is conventional), then
 *
 *     class=HEX sub=VENDOR:DEVICE group=N driver=NAME override=NAME bus=FROM-TO numa=N power=D3hot vfio=vfio0
 *     acs=NAMES-THAT-ARE-ON|off ats=on|off decode=off reset=flr,bus link=SPEEDxWIDTH[/MOST-SPEEDxMOST-WIDTH]
 *     barN=mem32|mem64|pref64|io:LENGTH[@ADDRESS] rom=LENGTH@ADDRESS window=memory|prefetch:LENGTH@ADDRESS
 *     vfs=N vf-decode=on physfn=ADDRESS
 *
 * `cpu amd 25 virtual` has the flag of a hypervisor, `cpu amd 25 real` lacks it, and for `cpu amd 25` it is unknown.
 * `reserved GROUP FIRST LAST KIND` adds a range to the window of MSIs that every group has.
 */
import { configBytes } from './config-bytes.ts';

const CPU_VENDORS: Readonly<Record<string, string>> = { intel: '0000', amd: '0002' };
const DEVICES = 'bus/pci/devices';
const NONE = '-';

interface Level {
  readonly indent: number;
  readonly folder: string;
  /** Its domain and the number of the bus below it. */
  readonly domain: string;
  readonly bus: number;
  readonly iommu: string | undefined;
}

export interface DescribeOptions {
  /** The most bytes of config space that the recording has: 64 for a plain user's. */
  readonly configBytes?: number;
}

export function describeMachine(text: string, { configBytes: most = 4096 }: DescribeOptions = {}): string {
  const out: string[] = [];
  const members = new Map<string, string[]>();
  const reserved = new Map<string, string[]>();
  const behind = new Map<string, string[]>();
  const levels: Level[] = [];
  for (const line of text.split('\n')) {
    const [head = '', ...words] = line.trim().split(/\s+/);
    if (head === '' || head.startsWith('#')) continue;
    const indent = line.search(/\S/);
    while ((levels.at(-1)?.indent ?? -1) >= indent) levels.pop();
    if (head === 'cpu') {
      // X86_FEATURE_FPU, and X86_FEATURE_HYPERVISOR.
      const features = words.length === 2 ? '' : words[2] === 'virtual' ? ',0000,009F' : ',0000';
      const family = Number(words[1]).toString(16).padStart(4, '0');
      out.push(
        '[devices/system/cpu]',
        `modalias = cpu:type:x86,ven${CPU_VENDORS[words[0] ?? '']}fam${family}mod0001:feature:${features}`,
      );
    } else if (head === 'iommu') {
      const [name = '', kind = '', bits = '48', tlb] = words;
      behind.set(name, []);
      out.push(`[class/iommu/${name}]`, 'devices/');
      if (kind !== 'intel') {
        out.push(`${kind}-iommu/`);
        continue;
      }
      const cap = (BigInt(Number(bits) - 1) << 16n) | (bits === '39' ? 0x200n : 0x600n);
      out.push(
        `intel-iommu/cap = ${cap.toString(16)}`,
        `intel-iommu/ecap = ${tlb === 'device-tlb' ? 'f020de' : 'f020da'}`,
      );
    } else if (head === 'reserved') {
      const [group = '', ...range] = words;
      reserved.set(group, [...(reserved.get(group) ?? []), range.join(' ')]);
    } else if (head === 'host') {
      const [bus = ''] = words;
      const [domain = '', number = ''] = bus.split(':');
      const iommu = options(words).get('iommu')?.[0];
      levels.push({ indent, folder: `devices/pci${bus}`, domain, bus: Number.parseInt(number, 16), iommu });
    } else {
      const parent = levels.at(-1);
      if (parent === undefined) throw new Error(`on no bus: ${line}`);
      const place = head.includes(':') ? head : `${parent.bus.toString(16).padStart(2, '0')}:${head}`;
      const address = `${parent.domain}:${place}`;
      const folder = `${parent.folder}/${address}`;
      const wishes = options(words);
      const buses = wishes
        .get('bus')?.[0]
        ?.split('-')
        .map((bus) => Number.parseInt(bus, 16));
      if (buses !== undefined) {
        levels.push({ ...parent, indent, folder, bus: buses[0] ?? 0 });
      }
      out.push(`[${folder}]`, ...functionLines(words, wishes, buses, most));
      const group = wishes.get('group')?.[0];
      if (group !== undefined) {
        members.set(group, [...(members.get(group) ?? []), address]);
        out.push(`iommu_group -> ../../../kernel/iommu_groups/${group}`);
        if (parent.iommu !== undefined) {
          out.push(`iommu -> ../../virtual/iommu/${parent.iommu}`);
          behind.get(parent.iommu)?.push(address);
        }
      }
      out.push(`[${DEVICES}]`, `${address} -> ../../../${folder}`);
      const physical = wishes.get('physfn')?.[0];
      if (physical !== undefined) out.push(`[${folder}]`, `physfn -> ../${physical}`);
    }
  }
  for (const [group, addresses] of members) {
    const ranges = [...(reserved.get(group) ?? []), '0x00000000fee00000 0x00000000feefffff msi'].sort();
    out.push(`[kernel/iommu_groups/${group}]`, 'type = DMA-FQ', `reserved_regions = ${ranges.join('\\n')}`);
    out.push(...addresses.map((address) => `devices/${address} -> ../../../../bus/pci/devices/${address}`));
  }
  for (const [name, addresses] of behind) {
    out.push(`[class/iommu/${name}]`, ...addresses.map((address) => `devices/${address} -> ../../../../${address}`));
  }
  return out.join('\n');
}

type Options = ReadonlyMap<string, readonly string[]>;

function options(words: readonly string[]): Options {
  const found = new Map<string, string[]>();
  for (const word of words.filter((each) => each.includes('='))) {
    const [name = '', value = ''] = word.split('=');
    found.set(name, [...(found.get(name) ?? []), value]);
  }
  return found;
}

function functionLines(words: readonly string[], wishes: Options, buses: number[] | undefined, most: number): string[] {
  const one = (name: string): string | undefined => wishes.get(name)?.[0];
  const [vendor = 0, device = 0] = (words[0] ?? '').split(':').map((id) => Number.parseInt(id, 16));
  const [subVendor = 0, subDevice = 0] = (one('sub') ?? '0:0').split(':').map((id) => Number.parseInt(id, 16));
  const type = words.slice(1).find((word) => !word.includes('='));
  const lines = [
    `vendor = ${hex(vendor, 4)}`,
    `device = ${hex(device, 4)}`,
    `subsystem_vendor = ${hex(subVendor, 4)}`,
    `subsystem_device = ${hex(subDevice, 4)}`,
    'revision = 0x00',
    `class = 0x${one('class') ?? (buses === undefined ? '088000' : '060400')}`,
    `driver_override = ${one('override') ?? '(null)'}`,
    `numa_node = ${one('numa') ?? '-1'}`,
    `power_state = ${one('power') ?? 'D0'}`,
    `resource = ${resources(wishes, buses !== undefined).join('\\n')}`,
  ];
  const acs = one('acs');
  const isVirtual = one('physfn') !== undefined;
  const bytes = configBytes({
    // Both registers of a virtual function read as all ones (SR-IOV 1.1, 3.4.1.1).
    vendor: isVirtual ? 0xffff : vendor,
    device: isVirtual ? 0xffff : device,
    type,
    bus: buses === undefined ? undefined : [buses[0] ?? 0, buses[1] ?? buses[0] ?? 0],
    acs: acs === undefined ? undefined : acs === 'off' ? [] : acs.split(','),
    ats: one('ats') as 'on' | 'off' | undefined,
    command: one('decode') === 'off' || isVirtual ? 4 : 6,
    sriov: one('vfs') === undefined ? undefined : one('vf-decode') === 'on' ? 9 : 0,
  }).subarray(0, most);
  const packed = [...bytes].flatMap((byte, at) => (byte === 0 ? [] : [`${at.toString(16)}:${hex(byte, 2).slice(2)}`]));
  lines.push(`config : ${[bytes.length, ...packed].join(' ')}`);
  const driver = one('driver');
  if (driver !== undefined) lines.push(`driver -> ../../../bus/pci/drivers/${driver}`);
  if (one('vfio') !== undefined) lines.push(`vfio-dev/${one('vfio')}/`);
  if (one('reset') !== undefined) lines.push(`reset_method = ${one('reset')?.replaceAll(',', ' ')}`, 'reset =');
  if (one('vfs') !== undefined) lines.push(`sriov_totalvfs = ${one('vfs')}`);
  const [now, top = now] = one('link')?.split('/') ?? [];
  for (const [when, link] of Object.entries({ current: now, max: top })) {
    if (link === undefined) continue;
    const [speed = '', width = ''] = link.split('x');
    lines.push(
      `${when}_link_speed = ${speed.includes('.') ? speed : `${speed}.0`} GT/s PCIe`,
      `${when}_link_width = ${width}`,
    );
  }
  return lines;
}

const FLAGS: Readonly<Record<string, number>> = {
  io: 0x40101,
  mem32: 0x40200,
  mem64: 0x140204,
  pref64: 0x14220c,
  rom: 0x46200,
  memory: 0x200,
  prefetch: 0x102201,
};

function resources(wishes: Options, isBridge: boolean): string[] {
  const lines = Array.from({ length: isBridge ? 17 : 13 }, () => NONE);
  const put = (index: number, kind: string, place: string): void => {
    const [length = '', address = '0'] = place.split('@');
    const start = BigInt(address);
    const last = start + bytesOf(length) - 1n;
    lines[index] = `0x${start.toString(16)} 0x${last.toString(16)} ${hex(FLAGS[kind] ?? 0, 1)}`;
  };
  for (const [name, [value = '']] of wishes) {
    const bar = /^bar([0-5])$/.exec(name)?.[1];
    if (bar !== undefined) put(Number(bar), ...(value.split(':') as [string, string]));
    if (name === 'rom') put(6, 'rom', value);
  }
  for (const [index, value] of (wishes.get('window') ?? []).entries()) {
    put(14 + index, ...(value.split(':') as [string, string]));
  }
  return lines;
}

function bytesOf(text: string): bigint {
  const [, digits = '0', unit = ''] = /^(\d+)([KMGT]?)$/.exec(text) ?? [];
  return BigInt(digits) << BigInt(10 * ' KMGT'.indexOf(unit || ' '));
}

function hex(value: number, digits: number): string {
  return `0x${value.toString(16).padStart(digits, '0')}`;
}
