// The subjects of the API reference: maps folders of the package to titles.

/** The subjects in order. A file belongs to the subject with the longest matching path prefix. */
const SUBJECTS = [
  { title: 'Guest memory', paths: ['guest/', 'memory/', 'address-range'] },
  { title: 'DMA targets', paths: ['dma/', 'guest/dma-mapper-client', 'guest/device-changes', 'memory/host-memory'] },
  { title: 'VFIO', paths: ['vfio/'] },
  { title: 'Assigned devices', paths: ['pci/', 'event-fd', 'registration'] },
  { title: 'Other processes', paths: ['unix-socket', 'owned-descriptor', 'vhost-user/'] },
  { title: 'Virtual machines', paths: ['kvm/'] },
  { title: 'Migration', paths: ['migration/', 'pci/migration/'] },
  { title: 'Simulated devices', paths: ['pci/simulated/', 'dma/simulated-iommu', 'dma/iommu-rules'] },
  { title: 'Drivers', paths: ['driver/'] },
  { title: 'Host and topology', paths: ['host/', 'doctor/'] },
  {
    title: 'Inspection',
    paths: ['inspect', 'journal/', 'dma/events', 'guest/inspect', 'guest/explain', 'guest/layers', 'guest/target-view'],
  },
  { title: 'Errors', paths: ['errors'] },
  { title: 'Cancellation', paths: ['abort'] },
];

export const titles = SUBJECTS.map(({ title }) => title);

/**
 * Returns the subject of a declaration.
 *
 * @param {string} file path of a declaration in its package, such as `dist/guest/ram.d.ts`
 * @returns {string | undefined} the title of its subject
 */
export function subjectOf(file) {
  const within = file.slice(file.indexOf('/') + 1);
  const all = SUBJECTS.flatMap(({ title, paths }) => paths.map((path) => ({ title, path })));
  const fitting = all.filter(({ path }) => within.startsWith(path));
  return fitting.sort((a, b) => b.path.length - a.path.length)[0]?.title;
}
