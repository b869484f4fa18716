// `npm run NAME` for all that needs the package built: does what is due of the set-up, then the thing itself.
import { runTask } from './tasks.mjs';

const [task, ...args] = process.argv.slice(2);
process.exitCode = await runTask(task, args);
