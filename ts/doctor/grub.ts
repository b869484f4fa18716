/**
 * Commands that change the kernel's command line, where GRUB has it as Debian and Ubuntu do. It counts from the next boot on.
 */
const FILE = '/etc/default/grub';

/** @param word such as `intel_iommu=on` @internal */
export function addToCommandLine(word: string): string {
  return `sudo sed -i 's/^GRUB_CMDLINE_LINUX="/&${word} /' ${FILE} && sudo update-grub`;
}

/** @param word that is there; what could mean something to a shell makes no command @internal */
export function removeFromCommandLine(word: string): string | undefined {
  return /^[\w=,]+$/.test(word) ? `sudo sed -i 's/\\b${word}\\b//' ${FILE} && sudo update-grub` : undefined;
}
