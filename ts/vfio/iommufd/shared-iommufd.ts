/**
 * The one open `/dev/iommu` of this thread. Devices of several managers that share a bus can be reset together only where they
 * are bound to the same one (Linux `vfio_pci_dev_set_hot_reset`).
 */
import { NativeIommufd } from '#native';

let shared: NativeIommufd | undefined;
let users = 0;

/** Opens it, or takes the one that is open. @internal */
export class SharedIommufd {
  #released = false;
  readonly iommufd: NativeIommufd;

  private constructor(iommufd: NativeIommufd) {
    this.iommufd = iommufd;
  }

  /** @throws what the native core says */
  static open(): SharedIommufd {
    shared ??= NativeIommufd.open();
    users++;
    return new SharedIommufd(shared);
  }

  /** Closes it, if nobody else has it. Idempotent. */
  release(): void {
    if (this.#released) return;
    this.#released = true;
    if (--users > 0) return;
    shared?.close();
    shared = undefined;
  }
}
