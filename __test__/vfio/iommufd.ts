/**
 * The tests on real devices with iommufd in one file: of each back end, and of iommufd alone.
 */
import './each-back-end.ts';
import './iommufd/dropping.test.ts';
import './iommufd/failing-dirty-tracking.test.ts';
import './iommufd/files.test.ts';
import './iommufd/leaks.test.ts';
import './iommufd/life.test.ts';
import './iommufd/lost-mappings.test.ts';
import './iommufd/malformed.test.ts';
import './iommufd/mock-iommus.test.ts';
import './iommufd/older-kernel.test.ts';
import './iommufd/revocation.test.ts';
import './iommufd/strangers.test.ts';
import './iommufd/truncated.test.ts';
import './iommufd/wrong-caller.test.ts';
import './iommufd/wrong-order.test.ts';
