/**
 * A process whose callback for the state of a back end throws: prints what happens.
 */
import { UnixSocket } from '../../../ts/index.ts';
import { VhostUserTarget } from '../../../ts/vhost-user.ts';
import { until } from '../../support/until.ts';
import { TestBackEnd } from './back-end.ts';

const events: string[] = [];
process.on('uncaughtException', (error, origin) => events.push(`${origin} ${error.message}`));
const [ours, theirs] = UnixSocket.pair();
const backEnd = new TestBackEnd(theirs);
const target = await VhostUserTarget.connect(ours, { name: 'disk' });
target.onStateChange((state) => {
  throw new Error(state);
});
backEnd.next.set('GET_CONFIG', 'noise');
const code = await target.readConfig(0, 8).catch((error: { code: string }) => error.code);
await until(() => target.state === 'failed', 'the failure');
backEnd.die();
await until(() => target.state === 'disconnected', 'the end');
await target.close();
events.push(`${code} ${target.state}`);
console.log(JSON.stringify(events));
