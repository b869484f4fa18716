/**
 * Doctor findings about the kernel, VFIO and its back ends.
 */
import test from 'ava';
import { PeerDmaError } from '../../ts/errors.ts';
import {
  MACHINE,
  TOP,
  UNBOUND,
  UNLOADED,
  diagnosed,
  found,
  noContainer,
  noIommufd,
  one,
  testCases,
} from './support.ts';

const CONFIG = /CONFIG_VFIO_PCI=m\S*/;

testCases([
  [
    'a kernel older than 5.4',
    { top: TOP.replace('= 7.3.4', '= 4.19.1') },
    'kernel',
    'warning',
    /older than 5\.4/,
    undefined,
  ],
  [
    'VFIO that is not loaded',
    {
      machine: UNBOUND,
      sys: UNLOADED,
      facts: { probes: { type1: noContainer('ENOENT'), iommufd: noIommufd('ENOENT') } },
    },
    'vfio',
    'blocked',
    /^VFIO is not available\. Load it with "modprobe vfio-pci", .* \(ENOENT from open\(\/dev\/vfio\/vfio\)\)$/,
    /^sudo modprobe vfio-pci$/,
  ],
  [
    'VFIO without its driver for PCI devices',
    { machine: UNBOUND, sys: UNLOADED },
    'vfio',
    'blocked',
    /the driver vfio-pci is not loaded/,
    /^sudo modprobe vfio-pci$/,
  ],
  [
    'a kernel without VFIO, by its configuration',
    {
      machine: UNBOUND,
      sys: UNLOADED,
      top: TOP.replace(CONFIG, 'CONFIG_PCI=y'),
    },
    'vfio',
    'blocked',
    /^this kernel has no VFIO/,
    /linux-image-amd64/,
  ],
  [
    'a kernel without VFIO, by its modules',
    {
      machine: UNBOUND,
      sys: UNLOADED,
      top: `${TOP.replace(/config-.*/, '')}\n[lib/modules/7.3.4-test]\nmodules.dep = kernel/drivers/nvme/host/nvme.ko.xz:`,
    },
    'vfio',
    'blocked',
    /^this kernel has no VFIO/,
    /linux-image-amd64/,
  ],
  [
    'a container without permission, and iommufd',
    { facts: { probes: { type1: noContainer('EACCES'), iommufd: { mapsFiles: true } } } },
    'type1',
    'warning',
    /may not open \/dev\/vfio\/vfio/,
    /^sudo chmod a\+rw \/dev\/vfio\/vfio$/,
  ],
  [
    'a container without permission, and nothing else',
    { facts: { probes: { type1: noContainer('EACCES'), iommufd: noIommufd('ENOENT') } } },
    'type1',
    'blocked',
    /may not open \/dev\/vfio\/vfio/,
    /^sudo chmod a\+rw \/dev\/vfio\/vfio$/,
  ],
  [
    'iommufd without permission',
    { facts: { probes: { type1: 'opened', iommufd: noIommufd('EACCES') } } },
    'iommufd',
    'warning',
    /may not open \/dev\/iommu/,
    /^sudo chown "\$USER" \/dev\/iommu$/,
  ],
  [
    'iommufd that is not loaded',
    { facts: { probes: { type1: 'opened', iommufd: noIommufd('ENOENT') } } },
    'iommufd',
    'warning',
    /no \/dev\/iommu.*Linux 6\.2/,
    /^sudo modprobe iommufd$/,
  ],
  [
    'a kernel without iommufd',
    {
      top: TOP.replace('CONFIG_IOMMUFD=m', 'CONFIG_X=m'),
      facts: { probes: { type1: 'opened', iommufd: noIommufd('ENOENT') } },
    },
    'iommufd',
    'warning',
    /no \/dev\/iommu/,
    undefined,
  ],
  [
    'neither back end',
    { facts: { probes: { type1: noContainer('ENOENT'), iommufd: noIommufd('EACCES') } } },
    'iommufd',
    'blocked',
    /may not open \/dev\/iommu/,
    /chown/,
  ],
  [
    'iommufd that cannot map files',
    { facts: { probes: { type1: 'opened', iommufd: { mapsFiles: false } } } },
    'map-file',
    'warning',
    /maps no files \(Linux 6\.13/,
    undefined,
  ],
  [
    'a VFIO device without its own file',
    { machine: MACHINE.replace(' vfio=vfio0', '') },
    'device-files',
    'warning',
    /no file below \/dev\/vfio\/devices.*Linux 6\.6/,
    undefined,
  ],
  [
    'no VFIO device, and a kernel with device files',
    { machine: UNBOUND },
    'device-files',
    'ok',
    /their own device files/,
    undefined,
  ],
  [
    'no VFIO device, and a kernel without device files',
    { machine: UNBOUND, top: TOP.replace('CONFIG_VFIO_DEVICE_CDEV=y', '') },
    'device-files',
    'warning',
    /no file below \/dev\/vfio\/devices/,
    undefined,
  ],
  [
    'no VFIO device, and a kernel that may have device files',
    { machine: UNBOUND, top: TOP.replace(/config-.*/, '') },
    'device-files',
    'unknown',
    /until one is bound/,
    undefined,
  ],
  [
    'a kernel before dma-bufs',
    { top: TOP.replaceAll('7.3.4', '6.18.4') },
    'dma-buf',
    'warning',
    /Linux 6\.19/,
    undefined,
  ],
  [
    'a kernel built without dma-bufs',
    { top: TOP.replace('CONFIG_VFIO_PCI_DMABUF=y', '') },
    'dma-buf',
    'warning',
    /does not export BARs/,
    undefined,
  ],
  [
    'a kernel that may have been built with dma-bufs',
    { top: TOP.replace(/config-.*/, '') },
    'dma-buf',
    'unknown',
    /--open/,
    undefined,
  ],
]);

test('a missing native core', (t) => {
  const missing = new PeerDmaError('ERR_NATIVE_CORE_MISSING', 'the package is not installed');
  const diagnosis = diagnosed(t, { facts: { probes: { type1: missing, iommufd: missing } } });
  t.like(one(diagnosis, 'native-core'), {
    state: 'blocked',
    code: 'ERR_NATIVE_CORE_MISSING',
    text: missing.message,
    fix: 'npm install --include=optional peerdma',
  });
  t.deepEqual(found(diagnosis, 'type1'), []);
  const other = new PeerDmaError('ERR_UNSUPPORTED_PLATFORM', 'it does not exist for darwin-arm64');
  const elsewhere = one(diagnosed(t, { facts: { probes: { type1: other, iommufd: other } } }), 'native-core');
  t.is(elsewhere.fix, undefined);
});
