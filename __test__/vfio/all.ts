/**
 * All tests on real devices, as one file: in an emulated guest it takes longer to start a process than to run a test.
 */
import './best-effort.test.ts';
import './containers.test.ts';
import './demo.test.ts';
import './huge-pages.test.ts';
import './native-guard.test.ts';
import './opening.test.ts';
import './peer-to-peer.test.ts';
import './type1-rules.test.ts';
