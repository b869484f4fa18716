/**
 * IOMMU parameters of the kernel's command line, evaluated by the kernel's rules.
 */
import test from 'ava';
import { NO_IOMMU, SYS, TOP, diagnosed, one } from './support.ts';

const AMD = { machine: NO_IOMMU.replace('intel 6', 'amd 25'), sys: SYS.replace('DMAR', 'IVRS') };
const INTEL = { machine: NO_IOMMU, sys: SYS };
const withWords = (words: string): string => TOP.replace('intel_iommu=on quiet', words);

/** The parameters that the finding names as turned off, or suggests. */
const cases: [words: string, wishes: { machine: string; sys: string }, text: RegExp][] = [
  ['intel_iommu=on intel_iommu=off', INTEL, /Remove intel_iommu=off/],
  ['intel_iommu=off intel_iommu=on', INTEL, /enables it \(intel_iommu=on\)\. Read the kernel's log/],
  ['intel_iommu=off,on', INTEL, /enables it \(intel_iommu=off,on\)/],
  ['intel_iommu=on,sm_off', INTEL, /enables it \(intel_iommu=on,sm_off\)/],
  ['intel_iommu=sm_on,off', INTEL, /Remove intel_iommu=sm_on,off/],
  ['intel_iommu=sm_on', INTEL, /Boot Linux with intel_iommu=on/],
  ['intel_iommu=igfx_off', INTEL, /Boot Linux with intel_iommu=on/],
  ['intel-iommu="off"', INTEL, /Remove intel-iommu="off"/],
  ['quiet\tintel_iommu=off', INTEL, /Remove intel_iommu=off/],
  ['x="intel_iommu=off"', INTEL, /Boot Linux with intel_iommu=on/],
  ['x="a intel_iommu=off b" intel_iommu=on', INTEL, /enables it/],
  ['ro -- intel_iommu=off', INTEL, /Boot Linux with intel_iommu=on/],
  ['amd_iommu=off', INTEL, /Boot Linux with intel_iommu=on/],
  ['iommu=off intel_iommu=on', INTEL, /Remove iommu=off/],
  ['iommu=pt,off', INTEL, /Remove iommu=pt,off/],
  ['iommu=usedac,off', INTEL, /Boot Linux with intel_iommu=on/],
  ['iommu=on intel_iommu=on', INTEL, /enables it \(intel_iommu=on\)/],
  ['iommu=pt', INTEL, /Boot Linux with intel_iommu=on/],
  ['iommu=soft intel_iommu=on', INTEL, /enables it/],
  ['iommu=off intel_iommu=off', INTEL, /Remove iommu=off and intel_iommu=off/],
  ['amd_iommu=off', AMD, /Remove amd_iommu=off/],
  ['amd_iommu=off amd_iommu=on', AMD, /Remove amd_iommu=off/],
  ['amd_iommu=pgtbl_v2,off', AMD, /Remove amd_iommu=pgtbl_v2,off/],
  ['amd_iommu=on', AMD, /though the firmware has one/],
  ['intel_iommu=off', AMD, /though the firmware has one/],
  ['iommu=off', AMD, /Remove iommu=off/],
  [`${'long '.repeat(80)}intel_iommu=off`, INTEL, /Remove intel_iommu=off/],
];

for (const [words, wishes, text] of cases) {
  const maker = wishes === AMD ? 'AMD' : 'Intel';
  test(`${maker}: ${words.replace('\t', ' TAB ').slice(-50)}`, (t) => {
    const finding = one(diagnosed(t, { ...wishes, top: withWords(words) }), 'iommu');
    t.is(finding.state, 'blocked');
    t.regex(finding.text, text);
    if (/intel_iommu=\S*\bon\b/.test(words)) t.notRegex(finding.fix ?? '', /&intel_iommu=on/, 'it is there already');
  });
}

test('one command removes all parameters that turn the IOMMU off', (t) => {
  const top = withWords('iommu=off intel_iommu=off');
  t.is(
    one(diagnosed(t, { ...INTEL, top }), 'iommu').fix,
    "sudo sed -i 's/\\biommu=off\\b//; s/\\bintel_iommu=off\\b//' /etc/default/grub && sudo update-grub",
  );
});

test('does not suggest intel_iommu=on if the kernel enables the IOMMU by default', (t) => {
  const top = withWords('quiet').replace(
    'CONFIG_INTEL_IOMMU=y',
    'CONFIG_INTEL_IOMMU=y\\nCONFIG_INTEL_IOMMU_DEFAULT_ON=y',
  );
  const finding = one(diagnosed(t, { ...INTEL, top }), 'iommu');
  t.regex(finding.text, /enables it \(CONFIG_INTEL_IOMMU_DEFAULT_ON\)/);
  t.regex(finding.fix ?? '', /dmesg/);
});

test('prefers ACPI tables to the CPU for the vendor of the IOMMU', (t) => {
  const emulated = { ...INTEL, machine: AMD.machine };
  t.regex(one(diagnosed(t, { ...emulated, top: withWords('quiet') }), 'iommu').text, /Boot Linux with intel_iommu=on/);
  t.regex(
    one(diagnosed(t, { ...emulated, top: withWords('intel_iommu=off') }), 'iommu').text,
    /Remove intel_iommu=off/,
  );
});

test("a kernel without the driver of this machine's IOMMU", (t) => {
  const top = TOP.replace('CONFIG_INTEL_IOMMU=y', 'CONFIG_AMD_IOMMU=y');
  const finding = one(diagnosed(t, { ...INTEL, top }), 'iommu');
  t.regex(finding.text, /no driver for it/);
  t.regex(finding.evidence, /CONFIG_INTEL_IOMMU is not set/);
});

test('reports that Xen reserves the IOMMU', (t) => {
  const sys = `${SYS.replace('DMAR = x\n', '')}\n[hypervisor]\ntype = xen`;
  const finding = one(diagnosed(t, { machine: NO_IOMMU, sys }), 'iommu');
  t.regex(finding.text, /Xen, which reserves the IOMMU/);
});

test('interrupt remapping: the last option wins, in lists too', (t) => {
  const sys = SYS.replace('IR-IO-APIC', 'IO-APIC');
  const fix = (words: string) => one(diagnosed(t, { sys, top: withWords(words) }), 'interrupt-remapping').fix ?? '';
  t.regex(fix('intremap=nosid,off'), /\\bintremap=nosid,off\\b/);
  t.regex(fix('intremap=on nointremap'), /\\bnointremap\\b/);
  for (const words of ['intremap=off intremap=on', 'nointremap intremap=on', 'x="intremap=off y"']) {
    t.regex(fix(words), /firmware-setup/, words);
  }
});
