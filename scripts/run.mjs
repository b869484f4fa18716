// `npm run NAME` for the tasks that need the package built: sets up the checkout, then runs the task.
import { runTask } from './tasks.mjs';

const [task, ...args] = process.argv.slice(2);
process.exitCode = await runTask(task, args);
