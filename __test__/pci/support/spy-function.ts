/** A PCI function that records accesses to its hardware, and fails on demand. */
import type { DeviceInterrupts, DeviceRegion, PhysicalFunction } from '../../../ts/index.ts';

/** Methods of interrupts that can fail. */
const CONNECTING: readonly (string | symbol)[] = ['connect', 'reconnect', 'disconnect'];

/** Forwards all calls to another function. */
export class SpyFunction implements PhysicalFunction {
  readonly bdf: string;
  readonly config: DeviceRegion;
  readonly regions: readonly (DeviceRegion | undefined)[];
  readonly interrupts: DeviceInterrupts;
  /** Called with a description before each change of hardware or interrupts. A returned value is thrown. */
  failWith: (what: string) => unknown = () => undefined;
  readonly #device: PhysicalFunction;
  readonly #log: (what: string) => void;

  constructor(device: PhysicalFunction, log: (what: string) => void) {
    this.#device = device;
    this.#log = log;
    this.bdf = device.bdf;
    this.regions = device.regions;
    this.interrupts = new Proxy(device.interrupts, {
      get: (target, name) => {
        const value: unknown = Reflect.get(target, name, target);
        if (typeof value !== 'function') return value;
        const method = value.bind(target) as (...args: unknown[]) => unknown;
        if (!CONNECTING.includes(name)) return method;
        return (...args: unknown[]) => {
          this.#failWith(`${String(name)} ${String(args[0])}`);
          return method(...args);
        };
      },
    });
    const { config } = device;
    const write = (offset: bigint, bytes: Uint8Array): void => {
      const value = bytes.reduceRight((sum, byte) => sum * 256 + byte, 0);
      this.#do(`config 0x${offset.toString(16)} = 0x${value.toString(16)}`);
      config.write(offset, bytes);
    };
    this.config = new Proxy(config, {
      get: (target, name) => {
        if (name === 'write') return write;
        const value: unknown = Reflect.get(target, name, target);
        return typeof value === 'function' ? (value.bind(target) as unknown) : value;
      },
    });
  }

  async reset(): Promise<void> {
    this.#do('reset');
    await this.#device.reset();
  }

  async hotReset(others: readonly PhysicalFunction[]): Promise<readonly PhysicalFunction[]> {
    this.#do('hot reset');
    const spy = new Map([this, ...others].map((one) => [one instanceof SpyFunction ? one.#device : one, one]));
    const reached = await this.#device.hotReset([...spy.keys()]);
    return reached.map((one) => spy.get(one) ?? one);
  }

  async close(): Promise<void> {
    this.#do('close');
    await this.#device.close();
  }

  #do(what: string): void {
    this.#log(what);
    this.#failWith(what);
  }

  #failWith(what: string): void {
    const refusal = this.failWith(what);
    if (refusal !== undefined) throw refusal;
  }
}
