/** The error of a change whose rollback fails, too. */
import test from 'ava';
import { rollbackFailed } from '../../ts/dma/mapping-error.ts';
import { AddressRange, PeerDmaError } from '../../ts/index.ts';

test('has the details of the first failure', (t) => {
  const details = {
    errno: 'EIO',
    syscall: 'pwrite',
    range: AddressRange.of(0x1000n, 0x1000n),
    target: 'A',
    bdf: '0000:01:00.0',
  };
  const error = rollbackFailed(new PeerDmaError('ERR_SYSTEM', 'first', details), [new Error('second')]);
  t.like(error, { code: 'ERR_ROLLBACK_FAILED', ...details });
  t.regex(error.message, /first.*second/);
});
