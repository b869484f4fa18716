/** Cliques of devices that reach each other, proposed from the peer-to-peer matrix. */
import test from 'ava';
import fc from 'fast-check';
import {
  type PeerMatrix,
  type PeerVerdict,
  nvidiaCliques,
  peerCandidates,
  peerCliques,
  peerMatrix,
} from '../../ts/host.ts';
import { throwsCode } from '../support/errors.ts';
import { seedOf } from '../support/seed.ts';
import { described } from './support.ts';

const VERDICTS: readonly PeerVerdict[] = ['yes', 'host-bridge', 'no', 'unknown'];

/** A matrix of devices A, B, … with the verdict of each ordered pair. */
function matrixOf(count: number, verdictOf: (from: number, to: number) => PeerVerdict): PeerMatrix {
  const names = Array.from({ length: count }, (_, index) => `0000:${(index + 1).toString(16).padStart(2, '0')}:00.0`);
  const cells = names.flatMap((initiator, from) =>
    names.flatMap((target, to) => {
      if (from === to) return [];
      const reasons = [{ code: 'host-bridge-known', text: 'the reason' } as const];
      return [{ initiator, target, verdict: verdictOf(from, to), reasons, prerequisites: [], notes: [], bars: [] }];
    }),
  );
  return { devices: names, cells, bypasses: [] };
}

const brief = ({ cliques, without }: ReturnType<typeof peerCliques>) => ({
  cliques: cliques.map(({ number, devices }) => `${number}: ${devices.map((one) => one.slice(5, 7)).join(' ')}`),
  without: without.map(({ device }) => device.slice(5, 7)),
});

test('proposes one clique for the GPUs of a server whose host bridges forward, and none of its network card', (t) => {
  const host = described(t, 'gpu-server');
  t.deepEqual(nvidiaCliques(host), {
    cliques: [{ number: 0, devices: ['0000:18:00.0', '0000:19:00.0', '0000:9a:00.0', '0000:9b:00.0'] }],
    without: [],
  });
  const [all] = peerCliques(peerMatrix(host, peerCandidates(host))).cliques;
  t.is(all?.devices.length, 5, 'the general function takes all devices');
  const devices = ['0000:19:00.0', '0000:18:00.0', '0000:1a:00.2', '0000:ff:00.0', '0000:19:00.0'];
  t.deepEqual(nvidiaCliques(host, { devices }).cliques, [{ number: 0, devices: ['0000:19:00.0', '0000:18:00.0'] }]);
});

test('proposes a clique for each host bridge that forwards, with the reason for the device left over', (t) => {
  const host = described(t, 'two-sockets');
  const { cliques, without } = peerCliques(peerMatrix(host, peerCandidates(host)));
  t.deepEqual(cliques, [{ number: 0, devices: ['0000:01:00.0', '0000:02:00.0'] }]);
  t.deepEqual(
    without.map(({ device }) => device),
    ['0000:81:00.0'],
  );
  t.regex(without[0]?.reason ?? '', /^0000:01:00\.0 to 0000:81:00\.0 has the verdict unknown: .*0000:80/);
});

test('accepts other verdicts on request, for a host bridge that was tested', (t) => {
  const host = described(t, 'two-sockets');
  const matrix = peerMatrix(host, peerCandidates(host));
  t.deepEqual(brief(peerCliques(matrix, { accept: ['yes', 'host-bridge', 'unknown'] })), {
    cliques: ['0: 01 02 81'],
    without: [],
  });
  t.deepEqual(peerCliques(matrix, { accept: ['yes'] }).cliques, []);
  t.deepEqual(peerCliques(matrix, { accept: [] }).cliques, []);
});

test('requires both directions, and all pairs', (t) => {
  const oneWay = matrixOf(2, (from) => (from === 0 ? 'yes' : 'no'));
  t.deepEqual(brief(peerCliques(oneWay)), { cliques: [], without: ['01', '02'] });
  t.deepEqual(
    peerCliques(oneWay).without.map(({ reason }) => reason),
    [
      '0000:02:00.0 to 0000:01:00.0 has the verdict no: the reason',
      '0000:02:00.0 to 0000:01:00.0 has the verdict no: the reason',
    ],
  );
  // 1-2, 2-3 and 3-4 reach each other: a chain has no clique of three.
  const chain = matrixOf(4, (from, to) => (Math.abs(from - to) === 1 ? 'host-bridge' : 'unknown'));
  t.deepEqual(brief(peerCliques(chain)), { cliques: ['0: 01 02', '1: 03 04'], without: [] });
});

test('names a cell that the matrix of a caller lacks', (t) => {
  const whole = matrixOf(2, () => 'yes');
  const reasons = ({ without }: ReturnType<typeof peerCliques>) => without.map(({ reason }) => reason);
  for (const [index, missing] of ['0000:01:00.0 to 0000:02:00.0', '0000:02:00.0 to 0000:01:00.0'].entries()) {
    const cells = whole.cells.toSpliced(index, 1);
    t.deepEqual(reasons(peerCliques({ ...whole, cells })), Array(2).fill(`the matrix has no cell of ${missing}`));
  }
  t.deepEqual(reasons(peerCliques({ ...whole, cells: [] })), [
    'the matrix has no cell of 0000:01:00.0 to 0000:02:00.0',
    'the matrix has no cell of 0000:02:00.0 to 0000:01:00.0',
  ]);
});

test('numbers 16 cliques, and leaves the devices of others out with the reason', (t) => {
  const pairs = matrixOf(36, (from, to) => (from >> 1 === to >> 1 ? 'yes' : 'no'));
  const { cliques, without } = peerCliques(pairs);
  t.deepEqual(
    cliques.map(({ number }) => number),
    Array.from({ length: 16 }, (_, number) => number),
  );
  t.is(without.length, 4);
  t.true(without.every(({ reason }) => reason === 'all 16 clique numbers are in use'));
  t.deepEqual(peerCliques(matrixOf(1, () => 'yes')).without[0]?.reason, 'the matrix has no other device');
  t.deepEqual(peerCliques(matrixOf(0, () => 'yes')), { cliques: [], without: [] });
});

test('each device is in one place, and all pairs of a clique reach each other, for random matrices', (t) => {
  const matrices = fc.nat(12).chain((count) =>
    fc
      .array(fc.constantFrom(...VERDICTS, 'yes' as const, 'host-bridge' as const), {
        minLength: count * count,
        maxLength: count * count,
      })
      .map((verdicts) => matrixOf(count, (from, to) => verdicts[from * count + to] ?? 'no')),
  );
  const property = fc.property(matrices, (matrix) => {
    const found = peerCliques(matrix);
    const placed = [...found.cliques.flatMap(({ devices }) => devices), ...found.without.map(({ device }) => device)];
    if (placed.toSorted().join() !== matrix.devices.toSorted().join()) throw new Error(`placed ${placed.join()}`);
    for (const { devices } of found.cliques) {
      if (devices.length < 2) throw new Error('a clique of one');
      for (const { initiator, target, verdict } of matrix.cells) {
        if (!devices.includes(initiator) || !devices.includes(target)) continue;
        if (verdict !== 'yes' && verdict !== 'host-bridge') throw new Error(`${initiator} does not reach ${target}`);
      }
    }
    if (JSON.stringify(peerCliques(matrix)) !== JSON.stringify(found)) throw new Error('another result');
  });
  t.notThrows(() => fc.assert(property, { seed: seedOf(t), numRuns: 1000 }));
});

test('rejects an unknown verdict', (t) => {
  const { message } = throwsCode(
    t,
    () =>
      peerCliques(
        matrixOf(2, () => 'yes'),
        { accept: ['maybe' as never] },
      ),
    'ERR_INVALID_ARGUMENT',
  );
  t.regex(message, /a verdict is one of yes, host-bridge, no, unknown, not maybe/);
});
