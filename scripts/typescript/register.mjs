// Lets Node load TypeScript: `node --import=./scripts/typescript/register.mjs FILE.ts`.
import { register } from 'node:module';

register('./hooks.mjs', import.meta.url);
process.setSourceMapsEnabled(true);
