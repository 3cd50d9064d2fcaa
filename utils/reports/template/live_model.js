"use strict";

// What the live page computes, as utils/physics and utils/score do: the exact score, the networks, the sampler. Points
// are flat arrays x_1, x_2, x_1, x_2, ... in [0,1). A field is a function (x, begin, end, t, out) that writes the
// normalised score N = sigma(t) grad log p of the points begin to end into out.

const STEPS = 100; // of the sampler, as in the tables; t = k / STEPS
const CHUNK = 64; // points between two looks at the clock

function wrap(x) {
  x -= Math.floor(x);
  return x < 1 ? x : 0; // the remainder of a tiny negative number rounds to 1
}

function displacement(x, y) {
  const difference = x - y;
  return difference - Math.floor(difference + 0.5);
}

const SCHEDULES = {
  exponential: ({ sigma_min, sigma_max }) => (t) => sigma_min * Math.exp(Math.log(sigma_max / sigma_min) * t),
  linear: ({ sigma_min, sigma_max }) => (t) => sigma_min + (sigma_max - sigma_min) * t,
};

// The normal distribution wrapped around [0,1): a sum over images where it is narrow, a Fourier series elsewhere.
const wrapped = { logDensity: 0, score: 0 };

function wrappedNormal(u, sigma) {
  if (sigma < 0.38) {
    const scale = 0.5 / (sigma * sigma);
    let [sum, moment] = [1, 0];
    for (let k = 1; k <= 3 && k * (k - 2 * Math.abs(u)) * scale < 50; k++) {
      const [right, left] = [Math.exp(-k * (k + 2 * u) * scale), Math.exp(-k * (k - 2 * u) * scale)];
      sum += right + left;
      moment += k * (right - left);
    }
    wrapped.logDensity = Math.log(sum) - u * u * scale - Math.log(Math.sqrt(2 * Math.PI) * sigma);
    wrapped.score = -2 * scale * (u + moment / sum);
  } else {
    let [density, slope] = [1, 0];
    for (let n = 1; n <= 3; n++) {
      const amplitude = 2 * Math.exp(-2 * (Math.PI * n * sigma) ** 2);
      density += amplitude * Math.cos(2 * Math.PI * n * u);
      slope -= 2 * Math.PI * n * amplitude * Math.sin(2 * Math.PI * n * u);
    }
    wrapped.logDensity = Math.log(density);
    wrapped.score = slope / density;
  }
}

// The exact answer of one problem. modes: position, width and weight of each Gaussian.
function makeProblem(about) {
  const { modes } = about;
  const sigma = SCHEDULES[about.schedule.type](about.schedule);
  const terms = new Float64Array(modes.length);
  const scores = new Float64Array(2 * modes.length);
  const logWeights = modes.map((mode) => Math.log(mode.weight));
  const widthOf = (mode, noise) => Math.hypot(mode.width, noise);

  // Return log p at a point; the score is left in `score`.
  const score = [0, 0];
  function logDensity(x1, x2, noise) {
    let best = -Infinity;
    modes.forEach((mode, m) => {
      const width = widthOf(mode, noise);
      wrappedNormal(displacement(x1, mode.position[0]), width);
      terms[m] = logWeights[m] + wrapped.logDensity;
      scores[2 * m] = wrapped.score;
      wrappedNormal(displacement(x2, mode.position[1]), width);
      terms[m] += wrapped.logDensity;
      scores[2 * m + 1] = wrapped.score;
      best = Math.max(best, terms[m]);
    });
    let sum = 0;
    score.fill(0);
    terms.forEach((term, m) => {
      const share = Math.exp(term - best);
      sum += share;
      score[0] += share * scores[2 * m];
      score[1] += share * scores[2 * m + 1];
    });
    score[0] /= sum;
    score[1] /= sum;
    return best + Math.log(sum);
  }

  function field(x, begin, end, t, out) {
    const noise = sigma(t);
    for (let i = 2 * begin; i < 2 * end; i += 2) {
      logDensity(x[i], x[i + 1], noise);
      out[i] = noise * score[0];
      out[i + 1] = noise * score[1];
    }
  }

  // Return how many widths of its nearest mode (the least of such numbers) a point is away from it.
  function radius(x1, x2, noise) {
    const far = (mode) => Math.hypot(displacement(x1, mode.position[0]), displacement(x2, mode.position[1]));
    return Math.min(...modes.map((mode) => far(mode) / widthOf(mode, noise)));
  }

  // Draw n points of the distribution at time t.
  function sample(n, t, random) {
    const x = new Float64Array(2 * n);
    for (let i = 0; i < 2 * n; i += 2) {
      let [chosen, u] = [0, random()];
      while (chosen < modes.length - 1 && u >= modes[chosen].weight) u -= modes[chosen++].weight;
      const mode = modes[chosen];
      const [z1, z2] = normalPair(random);
      x[i] = wrap(mode.position[0] + widthOf(mode, sigma(t)) * z1);
      x[i + 1] = wrap(mode.position[1] + widthOf(mode, sigma(t)) * z2);
    }
    return x;
  }

  const isStray = (x1, x2, t) => radius(x1, x2, sigma(t)) > about.stray_radius;
  const effective = (t) => about.mean_width ** 2 + sigma(t) ** 2; // sigma_eff^2, which makes an arrow of a score
  return {
    ...about, sigma, field, sample, radius, isStray, effective, widthOf,
    logDensity: (x1, x2, t) => logDensity(x1, x2, sigma(t)),
  };
}

// Networks. LANES evaluations go through a layer together: activation i of lane l is at i * LANES + l.
const LANES = 8;

function decode({ shape, base64 }) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const values = Float64Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
  return { shape, values };
}

function affine({ weight, bias }, input, output) {
  const length = (weight.length / bias.length) * LANES;
  for (let row = 0, at = 0; row < bias.length; row++) {
    let a = bias[row];
    let b = a, c = a, d = a, e = a, f = a, g = a, h = a; // one for each lane
    for (let i = 0; i < length; i += LANES, at++) {
      const w = weight[at];
      a += w * input[i];
      b += w * input[i + 1];
      c += w * input[i + 2];
      d += w * input[i + 3];
      e += w * input[i + 4];
      f += w * input[i + 5];
      g += w * input[i + 6];
      h += w * input[i + 7];
    }
    const o = row * LANES;
    output[o] = a;
    output[o + 1] = b;
    output[o + 2] = c;
    output[o + 3] = d;
    output[o + 4] = e;
    output[o + 5] = f;
    output[o + 6] = g;
    output[o + 7] = h;
  }
}

// Replace a by a s(a), s the logistic function, and keep the slope of that.
function silu(values, slopes) {
  for (let i = 0; i < values.length; i++) {
    const s = 1 / (1 + Math.exp(-values[i]));
    values[i] *= s;
    slopes[i] = s + values[i] * (1 - s);
  }
}

function transposed({ weight, bias }) {
  const [rows, columns] = [bias.length, weight.length / bias.length];
  const turned = Float64Array.from(weight, (_, i) => weight[(i % rows) * columns + Math.floor(i / rows)]);
  return { weight: turned, bias: new Float64Array(columns) };
}

// Let a function of LANES points at time t, `evaluate(x, t, out)`, act on any number, and average it over both orders
// of the atoms where the network is permutation equivariant: 1/2 (f(x) + P f(P x)).
function inLanes(evaluate, bothOrders) {
  const [x, out] = [new Float64Array(2 * LANES), new Float64Array(2 * LANES)]; // component c of lane l at c * LANES + l
  const together = bothOrders ? LANES / 2 : LANES;
  return (points, begin, end, t, result) => {
    for (let first = begin; first < end; first += together) {
      const n = Math.min(together, end - first);
      for (let l = 0; l < n; l++) {
        x[l] = points[2 * (first + l)];
        x[LANES + l] = points[2 * (first + l) + 1];
        if (bothOrders) {
          x[together + l] = x[LANES + l];
          x[LANES + together + l] = x[l];
        }
      }
      evaluate(x, t, out);
      for (let l = 0; l < n; l++) {
        const at = 2 * (first + l);
        result[at] = bothOrders ? (out[l] + out[LANES + together + l]) / 2 : out[l];
        result[at + 1] = bothOrders ? (out[LANES + l] + out[together + l]) / 2 : out[LANES + l];
      }
    }
  };
}

// A network type is a function of its weights (by name: shape and values), its configuration and sigma(t), that returns
// `evaluate` as above. Its name is score_network.type in the configuration.
const NETWORKS = { mlp: perceptron, energy };

// The layers of a network up to the last hidden one: `forward(x, t)` fills features, hidden activations and slopes.
function layersOf(weights, { number_of_hidden_layers: hiddenLayers }, sigma) {
  const linear = (name) => ({ weight: weights[`${name}.weight`].values, bias: weights[`${name}.bias`].values });
  const [ofCoordinates, ofSigma, ofTime] = ["coordinates", "sigma", "time"].map((name) => linear(`embed_${name}`));
  const [embedded, ...layers] = Array.from({ length: hiddenLayers + 1 }, (_, i) => linear(`layers.${2 * i}`));
  const rows = embedded.bias.length;
  const columns = embedded.weight.length / rows;

  // The embeddings are linear: the first layer is one map of the four cosines and sines, and a bias that depends on t.
  const first = { weight: new Float64Array(4 * rows), bias: new Float64Array(rows) };
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < ofCoordinates.bias.length; i++) {
      const w = embedded.weight[row * columns + i];
      for (let j = 0; j < 4; j++) first.weight[4 * row + j] += w * ofCoordinates.weight[4 * i + j];
    }
  }
  let known = null;
  function moveTo(t) {
    if (t === known) return;
    const of = ({ weight, bias }, value) => [...bias].map((b, i) => b + weight[i] * value);
    const constants = [...ofCoordinates.bias, ...of(ofSigma, sigma(t)), ...of(ofTime, t)];
    for (let row = 0; row < rows; row++) {
      first.bias[row] = embedded.bias[row];
      for (let i = 0; i < columns; i++) first.bias[row] += embedded.weight[row * columns + i] * constants[i];
    }
    known = t;
  }

  const features = new Float64Array(4 * LANES);
  const [hidden, slopes] = [0, 1].map(() => Array.from({ length: hiddenLayers }, () => new Float64Array(rows * LANES)));
  function forward(x, t) {
    moveTo(t);
    for (let i = 0; i < 2 * LANES; i++) {
      features[i] = Math.cos(2 * Math.PI * x[i]);
      features[2 * LANES + i] = Math.sin(2 * Math.PI * x[i]);
    }
    for (let i = 0; i < hiddenLayers; i++) {
      affine(i ? layers[i - 1] : first, i ? hidden[i - 1] : features, hidden[i]);
      silu(hidden[i], slopes[i]);
    }
  }
  return { first, layers, features, hidden, slopes, forward };
}

function perceptron(weights, settings, sigma) {
  const { layers, hidden, forward } = layersOf(weights, settings, sigma);
  return (x, t, out) => {
    forward(x, t);
    affine(layers.at(-1), hidden.at(-1), out);
  };
}

// sigma / sqrt(sigma^2 + length^2) times the gradient of the output: back through the layers.
function energy(weights, settings, sigma) {
  const { first, layers, features, slopes, forward } = layersOf(weights, settings, sigma);
  const [last, backwards] = [layers.at(-1).weight, [first, ...layers.slice(0, -1)].map(transposed)];
  const gradients = [new Float64Array(4 * LANES), ...slopes.map((slope) => new Float64Array(slope.length))];
  return (x, t, out) => {
    forward(x, t);
    gradients.at(-1).forEach((_, i, all) => (all[i] = last[Math.floor(i / LANES)]));
    for (let i = slopes.length; i > 0; i--) {
      for (let j = 0; j < slopes[i - 1].length; j++) gradients[i][j] *= slopes[i - 1][j];
      affine(backwards[i - 1], gradients[i], gradients[i - 1]);
    }
    const [byFeature, scale] = [gradients[0], (2 * Math.PI * sigma(t)) / Math.hypot(sigma(t), settings.length)];
    for (let i = 0; i < 2 * LANES; i++) {
      const [cos, sin] = [features[i], features[2 * LANES + i]];
      out[i] = scale * (byFeature[2 * LANES + i] * cos - byFeature[i] * sin);
    }
  };
}

function makeNetwork({ weights, score_network: settings }, problem) {
  const decoded = Object.fromEntries(Object.entries(weights).map(([name, packed]) => [name, decode(packed)]));
  const evaluate = NETWORKS[settings.type ?? "mlp"](decoded, settings, problem.sigma);
  return inLanes(evaluate, settings.permutation_equivariant && problem.shape[0] === 2);
}

// Random numbers: equal seeds give equal numbers (mulberry32), normal ones by Box and Muller.
function seeded(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let z = Math.imul(state ^ (state >>> 15), 1 | state);
    z = (z + Math.imul(z ^ (z >>> 7), 61 | z)) ^ z;
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
  };
}

function normalPair(random) {
  const [length, angle] = [Math.sqrt(-2 * Math.log(1 - random())), 2 * Math.PI * random()];
  return [length * Math.cos(angle), length * Math.sin(angle)];
}

// Return the noise of step k, which depends on the seed and k alone: it is the same for every field.
function noiseOf(seed, k, n) {
  const random = seeded(Math.imul(seed, 0x9e3779b1) + Math.imul(k + 1, 0x85ebca6b));
  const noise = new Float64Array(2 * n);
  for (let i = 0; i < 2 * n; i += 2) [noise[i], noise[i + 1]] = normalPair(random);
  return noise;
}

// The three ways to move particles from t = k / STEPS, a step each: which index comes next, where a thousand start.
// reverse: the predictor of utils/score/samplers.py. ode: the probability flow dx/d sigma = -N, by Heun's method.
const WAYS = {
  reverse: { direction: -1, start: (n, random) => Float64Array.from({ length: 2 * n }, random) },
  ode: { direction: -1, start: (n, random, problem) => problem.sample(n, 1, random) },
  forward: { direction: 1, start: (n, random, problem) => problem.sample(n, 0, random) },
};

// Return x one step later; a generator that yields between chunks of points.
function* moved(way, field, sigma, x, k, seed) {
  const next = k + WAYS[way].direction;
  const [t, later] = [k / STEPS, next / STEPS];
  const [now, then, n] = [sigma(t), sigma(later), x.length / 2];
  const width = Math.sqrt(Math.abs(now * now - then * then));
  const result = Float64Array.from(x);
  const noise = way === "ode" ? null : noiseOf(seed, way === "forward" ? STEPS + k : next, n);
  const [first, second] = [new Float64Array(2 * n), new Float64Array(2 * n)];
  for (let begin = 0; begin < n; begin += CHUNK) {
    const end = Math.min(begin + CHUNK, n);
    if (way !== "forward") field(x, begin, end, t, first);
    if (way === "ode") {
      for (let i = 2 * begin; i < 2 * end; i++) result[i] = x[i] + (now - then) * first[i];
      field(result, begin, end, later, second);
      for (let i = 2 * begin; i < 2 * end; i++) result[i] = wrap(x[i] + ((now - then) / 2) * (first[i] + second[i]));
    } else {
      const drift = way === "reverse" ? (width * width) / now : 0;
      for (let i = 2 * begin; i < 2 * end; i++) result[i] = wrap(x[i] + drift * first[i] + width * noise[i]);
    }
    yield;
  }
  return result;
}

function strays(problem, x, t) {
  return Array.from({ length: x.length / 2 }, (_, i) => problem.isStray(x[2 * i], x[2 * i + 1], t));
}

// Return where n particles end, all steps at once; for tests and the console.
function carried(way, field, problem, n, seed) {
  const { direction, start } = WAYS[way];
  let x = start(n, seeded(seed), problem);
  for (let k = direction < 0 ? STEPS : 0; k !== (direction < 0 ? 0 : STEPS); k += direction) {
    const steps = moved(way, field, problem.sigma, x, k, seed);
    let step = steps.next();
    while (!step.done) step = steps.next();
    x = step.value;
  }
  return x;
}
