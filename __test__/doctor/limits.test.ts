/**
 * Doctor findings about limits of the process and huge pages.
 */
import test from 'ava';
import { GIB, SYS, TOP, diagnosed, one, testCases } from './support.ts';

const RESERVED = '[kernel/mm/hugepages/hugepages-2048kB]\nresv_hugepages =';
const NO_TRANSPARENT = SYS.replace('[advise] never', 'advise [never]');
/** In a user namespace, recognized by its map of users, or by its number alone. */
const IN_NAMESPACE = TOP.replace('0000000000000000', '000001ffffffffff');
const MAPPED = '[proc/self]\nuid_map = 0 1000 1';
const WHOLE_MAP = '[proc/self]\nuid_map = 0 0 4294967295';

testCases([
  [
    'any RAM with CAP_IPC_LOCK of the first user namespace',
    {
      top: `${IN_NAMESPACE}\n${WHOLE_MAP}\nns/user -> user:[4026531837]`,
      facts: { ram: 1n << 50n },
    },
    'memlock',
    'ok',
    /can lock any amount/,
    undefined,
  ],
  [
    'RAM beyond the limit, with CAP_IPC_LOCK of another user namespace',
    { top: `${IN_NAMESPACE}\n${MAPPED}`, facts: { ram: 16n * GIB } },
    'memlock',
    'blocked',
    /up to 8 GiB.*CAP_IPC_LOCK of a user namespace does not lift the limit.*--ulimit memlock=17179869184/,
    undefined,
  ],
  [
    'RAM beyond the limit, in a user namespace that maps all users',
    { top: `${IN_NAMESPACE}\n${WHOLE_MAP}\nns/user -> user:[4026532999]`, facts: { ram: 16n * GIB } },
    'memlock',
    'blocked',
    /CAP_IPC_LOCK of a user namespace/,
    undefined,
  ],
  [
    'free huge pages that are reserved for other uses',
    { sys: `${NO_TRANSPARENT}\n${RESERVED} 256`, facts: { ram: GIB / 2n } },
    'huge-pages',
    'warning',
    /RAM of 512 MiB will be in pages of 4 KiB/,
    /shmem_enabled/,
  ],
  [
    'free huge pages, partly reserved, too few for all RAM',
    { sys: `${NO_TRANSPARENT}\n${RESERVED} 1`, facts: { ram: GIB / 2n } },
    'huge-pages',
    'warning',
    /RAM of 512 MiB will be in pages of 4 KiB/,
    /shmem_enabled/,
  ],
  [
    'free huge pages without reserved ones, for RAM of any size',
    { sys: `${NO_TRANSPARENT}\n${RESERVED} 56` },
    'huge-pages',
    'ok',
    /^400 MiB are free in huge pages of 2 MiB/,
    undefined,
  ],
  [
    'any RAM without a limit',
    { top: TOP.replace(/memory {9}\d+/, 'memory unlimited') },
    'memlock',
    'ok',
    /^any amount/,
    undefined,
  ],
  [
    'any RAM with CAP_IPC_LOCK',
    { top: TOP.replace('0000000000000000', '0000000000004000'), facts: { ram: 1n << 50n } },
    'memlock',
    'ok',
    /can lock any amount/,
    undefined,
  ],
  ['a limit without RAM to compare', {}, 'memlock', 'warning', /^up to 8 GiB.*--ram SIZE/, undefined],
  ['RAM up to the limit', { facts: { ram: 8n * GIB } }, 'memlock', 'ok', /8 GiB of RAM fit once/, undefined],
  [
    'RAM beyond the limit',
    { facts: { ram: 8n * GIB + 1n } },
    'memlock',
    'blocked',
    /Raise RLIMIT_MEMLOCK/,
    /^sudo prlimit --pid \$\$ --memlock=8589934593:8589934593$/,
  ],
  [
    'the usual limit of mappings, for 1 TiB',
    { facts: { ram: 1024n * GIB } },
    'mappings',
    'ok',
    /24572 separate pieces.*1 TiB/,
    undefined,
  ],
  [
    'the usual limit of mappings, for 16 TiB',
    { facts: { ram: 16384n * GIB } },
    'mappings',
    'warning',
    /24572 separate pieces.*131072 blocks of 128 MiB/,
    /^sudo sysctl vm\.max_map_count=349530$/,
  ],
  [
    'a limit of mappings that is too small for anything',
    { top: TOP.replace('65530', '500') },
    'mappings',
    'blocked',
    /186 separate pieces/,
    /^sudo sysctl vm\.max_map_count=687$/,
  ],
  [
    'fewer mappings in a container than in the process',
    { sys: SYS.replace('65535', '1000'), facts: { ram: 256n * GIB } },
    'mappings',
    'warning',
    /1000 separate pieces/,
    /^echo 2048 \| sudo tee \/sys\/module\/vfio_iommu_type1\/parameters\/dma_entry_limit$/,
  ],
  [
    'huge pages for all RAM',
    { facts: { ram: GIB / 2n } },
    'huge-pages',
    'ok',
    /of 2 MiB suffice for all RAM \(hugePages: '2M'\)/,
    undefined,
  ],
  ['too few huge pages, and transparent ones', { facts: { ram: GIB } }, 'huge-pages', 'ok', /'transparent'/, undefined],
  [
    'no huge pages for all RAM',
    { sys: SYS.replace('[advise] never', 'advise [never]'), facts: { ram: GIB } },
    'huge-pages',
    'warning',
    /RAM of 1 GiB will be in pages of 4 KiB/,
    /^echo advise \| sudo tee \/sys\/kernel\/mm\/transparent_hugepage\/shmem_enabled$/,
  ],
  [
    'some huge pages, for RAM of any size',
    { sys: SYS.replace('[advise] never', 'advise [never]') },
    'huge-pages',
    'ok',
    /^512 MiB are free in huge pages of 2 MiB/,
    undefined,
  ],
  [
    'no information on huge pages',
    { sys: SYS.replaceAll(/\[kernel\/mm[^[]*/g, '').replaceAll('[advise] never deny force', '') },
    'huge-pages',
    'unknown',
    /unknown here/,
    undefined,
  ],
]);

test('the suggested limit of mappings suffices, and one less does not', (t) => {
  for (const ram of [undefined, 100n * GIB, 16384n * GIB]) {
    const state = (limit: number) => {
      const sys = SYS.replace('65535', '4000000');
      return one(diagnosed(t, { sys, top: TOP.replace('65530', String(limit)), facts: { ram } }), 'mappings');
    };
    const { fix = '' } = state(500);
    const advised = Number(/=(\d+)$/.exec(fix)?.[1]);
    t.is(state(advised).state, 'ok', fix);
    t.not(state(advised - 8).state, 'ok', fix);
  }
});
