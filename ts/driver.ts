/**
 * `peerdma/driver`: DMA buffers and registers, for drivers of devices in this process.
 */
export { DmaBuffer, type DmaBufferOptions } from './driver/dma-buffer.ts';
export {
  registers,
  u32,
  u64,
  type RegisterDefinition,
  type RegisterFile,
  type RegisterView,
} from './driver/registers.ts';
