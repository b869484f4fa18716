// Descriptors that a back end sends although none are expected, and replies after the timeout.
import test, { type ExecutionContext } from 'ava';
import { UnixSocket } from '../../ts/index.ts';
import { VhostUserTarget } from '../../ts/vhost-user.ts';
import { Session } from '../../ts/vhost-user/session.ts';
import { rejectsCode } from '../support/errors.ts';
import { openFiles } from '../support/open-files.ts';
import { until } from '../support/until.ts';
import { TestBackEnd } from './support/back-end.ts';

const MANY = 253;
const TIMEOUT = 50;

/** A target, and the socket of its back end, which hangs at a request. */
async function hungAt(t: ExecutionContext, request: string): Promise<{ target: VhostUserTarget; theirs: UnixSocket }> {
  const [ours, theirs] = UnixSocket.pair();
  const backEnd = new TestBackEnd(theirs);
  const target = await VhostUserTarget.connect(ours, { timeout: TIMEOUT });
  t.teardown(async () => {
    backEnd.die();
    await target.close();
  });
  backEnd.next.set(request, 'hang');
  return { target, theirs };
}

function reply(request: number, payload: Uint8Array): Uint8Array {
  return Uint8Array.of(...new Uint8Array(Uint32Array.of(request, 5, payload.length).buffer), ...payload);
}

/** A count of open files is that of the whole process: these tests run alone. */
test.serial('holds no descriptors of a back end that has failed', async (t) => {
  const { target, theirs } = await hungAt(t, 'GET_CONFIG');
  await rejectsCode(t, target.readConfig(0, 8), 'ERR_TIMEOUT');
  const before = openFiles().length;
  const descriptors = Array.from({ length: MANY }, () => theirs.fd);
  for (let round = 0; round < 4; round++) {
    await theirs.send(new Uint8Array(12), { descriptors });
    await new Promise((resolve) => setTimeout(resolve, 5));
    t.is(openFiles().length, before);
  }
  t.is(target.state, 'failed');
});

test.serial('accepts no descriptors with a reply that has none, and waits for the end of its back end', async (t) => {
  const { target, theirs } = await hungAt(t, 'SET_FEATURES');
  const setting = target.setFeatures(0n);
  const before = openFiles().length;
  await theirs.send(reply(2, new Uint8Array(8)), { descriptors: Array.from({ length: MANY }, () => theirs.fd) });
  await rejectsCode(t, setting, 'ERR_INVALID_REPLY');
  t.is(openFiles().length, before);
  t.is(target.state, 'failed');
  await rejectsCode(t, target.close(), 'ERR_TIMEOUT', 'the back end runs');
  t.is(target.state, 'failed');
  theirs.close();
  await until(() => target.state === 'closed', 'its end');
});

for (const early of [0, 12]) {
  test.serial(`closes the descriptor of a reply that comes after the timeout except for ${early} bytes`, async (t) => {
    const [ours, theirs] = UnixSocket.pair();
    const session = new Session('disk', ours, TIMEOUT, { failed: () => {}, gone: () => {} });
    const asking = session.ask({ request: 'GET_INFLIGHT_FD' }, 24, { hasDescriptor: true });
    const before = openFiles().length;
    const message = reply(31, new Uint8Array(24));
    const descriptors = [theirs.fd];
    if (early > 0) await theirs.send(message.subarray(0, early), { descriptors });
    await rejectsCode(t, asking, 'ERR_TIMEOUT');
    await theirs.send(message.subarray(early), early > 0 ? {} : { descriptors });
    await new Promise((resolve) => setTimeout(resolve, 20));
    t.is(openFiles().length, before);
    theirs.close();
    await session.gone();
    t.true(session.isGone);
  });
}

test('a close that the back end does not confirm leaves the target failed until the end', async (t) => {
  const [ours, theirs] = UnixSocket.pair();
  const inherited = UnixSocket.fromFd(theirs.fd); // a child of the back end has it, too
  const backEnd = new TestBackEnd(theirs);
  t.teardown(() => backEnd.die());
  const target = await VhostUserTarget.connect(ours, { timeout: TIMEOUT });
  await rejectsCode(t, target.close(), 'ERR_TIMEOUT');
  t.is(target.state, 'failed');
  inherited.close();
  await target.close();
  t.is(target.state, 'closed');
});

test('a socket that its owner closes does not count as the end of the back end', async (t) => {
  const [ours, theirs] = UnixSocket.pair();
  const backEnd = new TestBackEnd(theirs);
  t.teardown(() => backEnd.die());
  const target = await VhostUserTarget.connect(ours, { timeout: TIMEOUT });
  ours.close();
  await until(() => target.state === 'failed', 'the end of the socket');
  t.is(target.failure?.code, 'ERR_SYSTEM');
  await rejectsCode(t, target.close(), 'ERR_TIMEOUT');
});
