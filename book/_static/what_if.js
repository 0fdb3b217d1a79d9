// The what-if page: scores its networks again whenever a control moves, and says what changed. The formulas are those
// of quide/metric.py, and a test compares them. On a page without the controls this file does nothing.
"use strict";

const whatIf = (() => {
  const PAUSE_MS = 300; // a slider is described when it has come to rest, not at every step
  const FIGURES = 4; // significant digits of latencies and scores
  const UNKNOWN = "–";
  const CONTROLS = ["network", "kernel", "unit", "count", "tolerance"];

  // --- the metric ---------------------------------------------------------------------------------------------------

  const latencyPenalty = (latency) => Math.log1p(latency) / Math.log(2);

  // Eq. 2.
  const intelligenceIndex = (compression, accuracy, latency) => (compression * accuracy) / latencyPenalty(latency);

  // Eq. 3.
  const gatedIndex = (compression, accuracy, latency, threshold) =>
    (compression * Math.max(accuracy - threshold, 0)) / latencyPenalty(latency);

  // Eq. 4.
  const accuracyThreshold = (fullPrecision, tolerance, numClasses) =>
    Math.max(1 / numClasses, fullPrecision - tolerance);

  // 32 over the mean width: of the layers, or of the weights where their numbers are given. A single width is that of
  // all layers.
  function compressionRatio(bits, numWeights = null) {
    const layers = Array.isArray(bits) ? bits.length : (numWeights ?? [1]).length;
    const widths = Array.isArray(bits) ? bits : Array(layers).fill(bits);
    const sizes = numWeights ?? Array(layers).fill(1);
    const sum = (values) => values.reduce((total, value) => total + value, 0);
    return (32 * sum(sizes)) / sum(widths.map((width, layer) => width * sizes[layer]));
  }

  // Place of the highest score above 0, unknown ones (null) aside; of equal scores the wider configuration wins.
  function knee(widths, scores) {
    let best = null;
    scores.forEach((score, place) => {
      if (score === null || score <= 0) return;
      const ahead = best === null || score > scores[best];
      if (ahead || (score === scores[best] && widths[place] > widths[best])) best = place;
    });
    return best;
  }

  // --- what a choice makes of a network -----------------------------------------------------------------------------

  function compressionOf(row, network, count) {
    if (count === "nominal") return compressionRatio(row.bits);
    if (network.numWeights === null) return Array.isArray(row.bits) ? null : compressionRatio(row.bits);
    return compressionRatio(row.bits, network.numWeights);
  }

  function score(data, choice) {
    const network = data.networks[choice.network];
    const tolerance = choice.tolerance ?? network.tolerance;
    const threshold = accuracyThreshold(network.fullPrecision, tolerance, network.numClasses);
    const rows = network.rows.map((row) => {
      const compression = compressionOf(row, network, choice.count);
      const time = row.latency[choice.kernel];
      const latency = time === null ? null : time * data.units[choice.unit].factor;
      const known = compression !== null && row.accuracy !== null && latency !== null;
      const parts = [compression, row.accuracy, latency];
      return {
        compression,
        accuracy: row.accuracy,
        latency,
        index: known ? intelligenceIndex(...parts) : null,
        gatedIndex: known ? gatedIndex(...parts, threshold) : null,
      };
    });
    const widths = network.rows.map((row) => 32 / compressionRatio(row.bits));
    const first = (name) => knee(widths, rows.map((row) => row[name]));
    return { network, threshold, rows, best: first("index"), knee: first("gatedIndex") };
  }

  // --- in words -----------------------------------------------------------------------------------------------------

  function figures(value) {
    if (value === null || value === 0) return value === null ? UNKNOWN : "0";
    return value.toFixed(Math.max(0, FIGURES - 1 - Math.floor(Math.log10(Math.abs(value)))));
  }

  const fixed = (value, digits) => (value === null ? UNKNOWN : value.toFixed(digits));
  const percent = (value) => (value === null ? UNKNOWN : `${(100 * value).toFixed(2)} %`);
  const implied = (text, isImplied) => (isImplied && text !== UNKNOWN ? `${text} †` : text);
  const nameOf = (result, place) => (place === null ? null : result.network.rows[place].name);

  function toleranceText(network, tolerance) {
    const paper = network.tolerance.toFixed(2);
    return tolerance === null ? `${paper} (the paper's)` : `${tolerance.toFixed(2)} (the paper's is ${paper})`;
  }

  // "stays at A", "moves from A to B", and where there is none before or after.
  function moves(before, after) {
    if (before === after) return after === null ? "is still nowhere" : `stays at ${after}`;
    if (after === null) return "is gone";
    return before === null ? `is now at ${after}` : `moves from ${before} to ${after}`;
  }

  function changesOf(data, before, after, threshold) {
    const names = { unit: ["Unit of T", "units"], count: ["C counts", "counts"], kernel: ["Latencies", "kernels"] };
    const said = [];
    if (before.network !== after.network) said.push(data.networks[after.network].label);
    for (const [control, [title, options]] of Object.entries(names)) {
      const words = (choice) => data[options][choice[control]].words;
      if (before[control] !== after[control]) said.push(`${title}: ${words(after)} instead of ${words(before)}`);
    }
    if (before.network === after.network && before.tolerance !== after.tolerance) {
      const delta = (choice) => (choice.tolerance ?? data.networks[choice.network].tolerance).toFixed(2);
      said.push(`δ: ${delta(after)} instead of ${delta(before)}, which puts the threshold at ${percent(threshold)}`);
    }
    return said;
  }

  // What a change of the controls did; `before` is null when the page opens.
  function describe(data, before, after) {
    const now = score(data, after);
    const sentences = [];
    if (before === null) sentences.push(now.network.label);
    else sentences.push(changesOf(data, before, after, now.threshold).join("; ") || "Nothing changed");
    if (before === null || before.network !== after.network) sentences.push(standing(now));
    else sentences.push(effect(score(data, before), now));
    const known = now.rows.filter((row) => row.index !== null).length;
    if (known > 0 && now.knee === null) sentences.push("No configuration is above the threshold");
    if (known > 0 && known < now.rows.length) sentences.push(`Only ${known} of ${now.rows.length} can be scored`);
    return `${sentences.join(". ")}.`;
  }

  function standing(result) {
    if (result.best === null) return "No configuration can be scored: each lacks a number";
    const knee = result.knee === null ? "there is no knee" : `the knee is at ${nameOf(result, result.knee)}`;
    return `I is highest at ${nameOf(result, result.best)}; ${knee}`;
  }

  // The same network before and after.
  function effect(then, now) {
    const same = (name) => now.rows.every((row, place) => row[name] === then.rows[place][name]);
    if (same("index") && same("gatedIndex")) return `No score changes. ${standing(now)}`;
    const first = (name) => moves(nameOf(then, then[name]), nameOf(now, now[name]));
    return `${same("index") ? "I does not change" : `The highest I ${first("best")}`}; the knee ${first("knee")}`;
  }

  // --- the address --------------------------------------------------------------------------------------------------

  function toFragment(choice) {
    const entries = Object.entries(choice).filter(([, value]) => value !== null);
    return `#${new URLSearchParams(entries)}`;
  }

  // The choice that an address holds, null if it names no network. What else it lacks or has wrong is as at the start.
  function fromFragment(data, fragment) {
    const asked = new URLSearchParams(fragment.slice(1));
    const oneOf = (name, options, otherwise) => (Object.hasOwn(options, asked.get(name)) ? asked.get(name) : otherwise);
    const key = oneOf("network", data.networks, null);
    if (key === null) return null;
    const network = data.networks[key];
    const tolerance = Number(Number.parseFloat(asked.get("tolerance")).toFixed(2)); // the slider's steps
    const usable = tolerance >= 0 && tolerance <= 1 && tolerance !== network.tolerance;
    return {
      network: key,
      kernel: oneOf("kernel", network.sources, network.kernel),
      unit: oneOf("unit", data.units, data.start.unit),
      count: oneOf("count", data.counts, data.start.count),
      tolerance: usable ? tolerance : null,
    };
  }

  // --- the page -----------------------------------------------------------------------------------------------------

  function element(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  // Controls, chart and table below `root`, and the choice that they show.
  function start(root) {
    const data = JSON.parse(root.querySelector(".what-if-data").textContent);
    const find = (selector) => root.querySelector(selector);
    const form = find("form");
    let choice = fromFragment(data, location.hash) ?? data.start;
    let described = null; // the choice that the sentence last told of
    let pause = null;

    function readForm(moved) {
      const asked = Object.fromEntries(CONTROLS.map((name) => [name, form.elements[name].value]));
      const network = data.networks[asked.network];
      if (!(asked.kernel in network.sources)) asked.kernel = network.kernel;
      const tolerance = moved === "tolerance" ? Number.parseFloat(asked.tolerance) : choice.tolerance;
      return { ...asked, tolerance: tolerance === network.tolerance ? null : tolerance };
    }

    function writeForm(network) {
      const shown = { ...choice, tolerance: choice.tolerance ?? network.tolerance };
      for (const name of CONTROLS) form.elements[name].value = shown[name];
      for (const radio of form.elements.kernel) radio.disabled = !(radio.value in network.sources);
      const text = toleranceText(network, choice.tolerance);
      find("output").value = text;
      form.elements.tolerance.setAttribute("aria-valuetext", text);
    }

    function drawTable(result) {
      const heading = `T (${data.units[choice.unit].words})`;
      find("thead").rows[0].cells[3].textContent = heading;
      const caption = `Scores of ${result.network.label}`;
      find("caption").textContent = caption;
      find(".quide-table").setAttribute("aria-label", caption);
      const lines = result.rows.map((row, place) => {
        const known = result.network.rows[place];
        const cells = [
          fixed(row.compression, 2),
          implied(percent(row.accuracy), known.implied),
          implied(figures(row.latency), choice.kernel === "paper" && known.latencyImplied),
          figures(row.index) + (place === result.best ? " ▲ highest" : ""),
          figures(row.gatedIndex) + (place === result.knee ? " ★ knee" : ""),
        ];
        const head = element("th", { scope: "row", textContent: known.name });
        return element("tr", {}, head, ...cells.map((textContent) => element("td", { textContent })));
      });
      find("tbody").replaceChildren(...lines);
      find(".what-if-source").textContent = result.network.sources[choice.kernel];
    }

    // Bars are as long as their score's share of the highest I, so that a change of unit shows as a change of order.
    function drawChart(result) {
      const chart = find(".what-if-chart");
      const highest = result.best === null ? 1 : result.rows[result.best].index;
      if (chart.dataset.network !== choice.network) {
        chart.dataset.network = choice.network;
        const bar = (kind) => element("div", { className: `what-if-bar what-if-${kind}` }, element("span"));
        const line = () => element("div", { className: "what-if-line" }, element("span"), bar("raw"), bar("gated"));
        const key = (kind, text) => element("span", { className: `what-if-key what-if-${kind}`, textContent: text });
        const keys = [key("raw", "I"), key("gated", "I′"), "▲ highest I, ★ knee"];
        const legend = element("div", { className: "what-if-legend" }, ...keys);
        chart.replaceChildren(legend, ...result.rows.map(line));
      }
      [...chart.querySelectorAll(".what-if-line")].forEach((line, place) => {
        const [name, ...bars] = line.children;
        const marks = `${place === result.best ? " ▲" : ""}${place === result.knee ? " ★" : ""}`;
        name.textContent = result.network.rows[place].name + marks;
        [result.rows[place].index, result.rows[place].gatedIndex].forEach((value, which) => {
          bars[which].style.setProperty("--share", (value ?? 0) / highest);
          bars[which].firstChild.textContent = figures(value);
        });
      });
      chart.setAttribute("aria-label", `Bars of I and I′, the numbers of the table below. ${standing(result)}.`);
    }

    function settle() {
      find(".what-if-sentence").textContent = describe(data, described, choice);
      if (described !== null) history.replaceState(null, "", toFragment(choice));
      described = choice;
    }

    function show(next) {
      choice = next;
      const result = score(data, choice);
      writeForm(result.network);
      drawTable(result);
      drawChart(result);
      clearTimeout(pause);
      pause = setTimeout(settle, described === null ? 0 : PAUSE_MS);
    }

    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", (event) => show(readForm(event.target.name)));
    form.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button !== null) show(button.dataset.preset ? data.presets[button.dataset.preset] : data.start);
    });
    addEventListener("hashchange", (event) => {
      const asked = fromFragment(data, new URL(event.newURL).hash); // settle() may have rewritten the address since
      if (asked !== null) show(asked);
    });
    find(".what-if-missing").hidden = true;
    for (const part of [form, find(".what-if-result")]) part.hidden = false;
    show(choice);
  }

  const root = document.getElementById("what-if");
  if (root !== null) start(root);
  return {
    intelligenceIndex, gatedIndex, accuracyThreshold, compressionRatio, knee, score, describe, toFragment, fromFragment,
  };
})();
