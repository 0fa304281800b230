"use strict";
// A plan, made anew where its reader moves the link, the price or the devices: the step time of cost/step/step_time.py, for
// links between hosts alone change. The page's numbers come in as JSON; nothing is fetched.

// Seconds of a step at a place of the plan's devices, and the fastest all-reduce.
function stepOf(model, place, size, gbit, microseconds) {
  const work = model.work[size], alpha = microseconds * 1e-6, beta = 8 / (gbit * 1e9);
  let best = null;
  for (const [name, counts] of model.traffic) {
    const sent = counts[place];
    if (!sent) continue;
    let end = 0;
    for (const [full, bytes] of work.buckets) {
      const seconds = model.devices[place] > 1 ? sent[0] + sent[1] * bytes + sent[2] * alpha + sent[3] * bytes * beta : 0;
      end = Math.max(end, full) + seconds;
    }
    const busy = work.compute + Math.max(end - work.backward_end, 0) + work.straggler[place];
    const seconds = Math.max(busy, work.data) * model.factor[place];
    if (!best || seconds < best.seconds) best = { seconds, algorithm: name };
  }
  return best;
}

function epochsOf(model, minibatch) {
  const critical = model.critical_minibatch;
  if (critical === null) return model.epochs;
  return model.epochs * (1 + minibatch / critical) / (1 + model.epochs_minibatch / critical);
}

// Hours with what failures add: with checkpoints as often as is best, or begun anew, whichever is shorter.
function withFailures(model, place, hours) {
  if (model.between_seconds === null) return hours;
  const between = model.between_seconds[place], seconds = hours * 3600;
  const anew = between * Math.exp(model.restart_seconds / between) * Math.expm1(seconds / between);
  return Math.min(anew, seconds / (1 - model.lost_share[place])) / 3600;
}

// The best minibatch and all-reduce at every number of devices; price may be null.
function replan(model, gbit, microseconds, price) {
  return model.devices.map((devices, place) => {
    let best = null;
    for (const [workers, each] of model.ways[place]) {
      const step = stepOf(model, place, Math.ceil(workers / devices) * each, gbit, microseconds);
      if (!step) continue;
      const minibatch = workers * each, epochs = epochsOf(model, minibatch);
      const hours = withFailures(model, place, step.seconds * epochs * model.epoch_examples / minibatch / 3600);
      if (best && hours >= best.hours) continue;
      best = {
        devices, workers, minibatch, algorithm: step.algorithm, step_seconds: step.seconds,
        examples_per_second: minibatch / step.seconds, epochs, hours,
        interval: [hours * model.low[place], hours * model.high[place]],
        device_hours: hours * devices, cost: price === null ? null : hours * devices * price,
      };
    }
    return best;
  });
}

function stopsPayingAt(model, rows) {
  for (let place = 0; place + 1 < rows.length; place++) {
    const [row, further] = [rows[place], rows[place + 1]];
    if (Math.log(row.hours / further.hours) < model.least_gain * Math.log(further.devices / row.devices)) return row.devices;
  }
  return null;
}

function shortNumber(value) {
  return value >= 1000 ? Number(value.toPrecision(3)).toLocaleString("en") : String(Number(value.toPrecision(3)));
}

function spanOf(hours) {
  if (hours >= 24) return `${shortNumber(hours / 24)} days`;
  if (hours >= 1) return `${shortNumber(hours)} h`;
  return hours >= 1 / 60 ? `${shortNumber(hours * 60)} min` : `${shortNumber(hours * 3600)} s`;
}

function startPlanner(section) {
  const model = JSON.parse(section.querySelector(".model").textContent);
  if (!model.ways) return;  // of a plan by an earlier version: its table stands on the page all the same
  const input = (name) => section.querySelector(`[name="${name}"]`);
  const output = (name, words) => { section.querySelector(`[data-of="${name}"]`).textContent = words; };
  const body = section.querySelector("tbody"), answer = section.querySelector("[data-of=answer]");
  function show() {
    const gbit = model.gbit * 2 ** Number(input("gbit").value), price = Number(input("price").value);
    const microseconds = Number(input("microseconds").value);
    const rows = replan(model, gbit, microseconds, price > 0 ? price : null);
    const row = rows[Number(input("devices").value)], stops = stopsPayingAt(model, rows);
    output("devices", row.devices.toLocaleString("en"));
    output("gbit", `${shortNumber(gbit)} Gbit/s`);
    output("microseconds", `${microseconds} µs`);
    output("price", price > 0 ? String(price) : "none");
    input("devices").setAttribute("aria-valuetext", `${row.devices} devices`);
    input("gbit").setAttribute("aria-valuetext", `${shortNumber(gbit)} gigabit a second`);
    answer.textContent = `${row.devices.toLocaleString("en")} devices: a minibatch of ${row.minibatch.toLocaleString("en")} ` +
      `by ${row.algorithm}, ${shortNumber(row.examples_per_second)} ${model.examples}/s, ${spanOf(row.hours)} ` +
      `(${spanOf(row.interval[0])} to ${spanOf(row.interval[1])}), ${shortNumber(row.device_hours)} device-hours` +
      (row.cost === null ? "" : `, cost ${shortNumber(row.cost)}`) +
      (stops === null ? "; all of these devices pay." : `; more devices stop paying at ${stops.toLocaleString("en")}.`);
    body.replaceChildren(...rows.map((each) => {
      const line = document.createElement("tr");
      const cells = [
        each.devices.toLocaleString("en"), each.minibatch.toLocaleString("en"), each.algorithm,
        shortNumber(each.examples_per_second), shortNumber(each.epochs), spanOf(each.hours), shortNumber(each.device_hours),
        each.cost === null ? "" : shortNumber(each.cost),
      ];
      cells.forEach((words, column) => {
        const cell = document.createElement("td");
        if (column !== 2) cell.className = "num";
        cell.textContent = words;
        line.append(cell);
      });
      if (each === row) line.className = "here";
      return line;
    }));
  }
  section.querySelectorAll("input").forEach((slider) => slider.addEventListener("input", show));
  section.hidden = false;
  show();
}

if (typeof document !== "undefined") document.querySelectorAll("#planner").forEach(startPlanner);
