// A network that is pruned: the sliders over moments and decays, and what was chosen, kept while it is drawn anew.
function studioPruning(root) {
  const states = new Map();
  const PART = 1e-5;

  const stateOf = section => {
    const group = section.dataset.group;
    if (!states.has(group)) {
      states.set(group, {step: null, layer: null, points: null, log: false, channel: null, text: '', data: null});
    }
    const state = states.get(group);
    if (state.text !== section.dataset.prune) {
      state.text = section.dataset.prune;
      state.data = JSON.parse(state.text);
    }
    const {path} = state.data;
    if (path.layer !== state.layer) [state.layer, state.step, state.channel] = [path.layer, null, null];
    return state;
  };

  // Where the slider stands: at the moment that was chosen, which may have moved since, else at the last one.
  const momentOf = ({data: {path}, step}) => {
    if (step === null) return path.steps.length - 1;
    const later = path.steps.findIndex(each => each >= step);
    return later < 0 ? path.steps.length - 1 : later;
  };

  // The places of the channels, read where they are drawn.
  const placesOf = section => {
    const numbers = section.querySelector('.st-prune-dots').getAttribute('d').match(/-?[\d.]+/g) || [];
    return Array.from({length: numbers.length / 3}, (_, index) => numbers.slice(3 * index, 3 * index + 2));
  };

  const drawPlane = (section, path, moment, places) => {
    const set = (name, part, value) => section.querySelector(name).setAttribute(part, value);
    const channels = path.channels[moment], weights = path.weights[moment], most = Math.max(...weights);
    const sizes = ['', '', ''];
    channels.forEach((channel, index) => {
      const size = path.sizes.filter(bound => weights[index] < bound * most).length;
      sizes[size] += `M${places[channel].join(' ')}h0`;
    });
    sizes.forEach((line, size) => set(`.st-prune-s${size}`, 'd', line));
    const trail = `M${path.at.slice(0, moment + 1).join('L')}`, [x, y] = path.at[moment].split(' ');
    section.querySelectorAll('.st-prune-trail').forEach(line => line.setAttribute('d', trail));
    set('.st-prune-now', 'cx', x);
    set('.st-prune-now', 'cy', y);
    if (section.querySelector('.st-prune-close')) {
      set('.st-prune-close > svg', 'viewBox', path.windows[moment]);
      set('.st-prune-tip', 'd', `M${path.at[moment]}h0`);
      section.querySelector('.st-prune-close output').textContent = path.times[moment];
    }
    const touched = places[path.touched[moment]], from = path.at[Math.max(0, moment - 1)];
    set('.st-prune-reach', 'd', touched ? `M${from}L${touched.join(' ')}` : '');
    set('.st-prune-reach', 'data-kind', path.kinds[moment]);
  };

  const drawBars = (section, path, moment, whole) => {
    const field = section.querySelector('.st-prune-bars'), all = path.channels[moment].length;
    const most = Math.max(...path.weights[moment]), bars = [];
    path.channels[moment].slice(0, path.bars).forEach((channel, index) => {
      const share = path.weights[moment][index] * PART, bar = document.createElement('input');
      const words = document.createElement('span');
      words.textContent = `channel ${channel}: ${(100 * share).toFixed(1)} % of the weight, ` +
        `${(whole * share).toFixed(1)} times its old one`;
      bar.type = 'radio';
      bar.name = `channel-${field.dataset.group}`;
      bar.value = channel;
      bar.title = words.textContent;
      bar.setAttribute('aria-label', words.textContent);
      bar.style.setProperty('--h', (path.weights[moment][index] / most).toFixed(3));
      bars.push(bar, words);
    });
    field.replaceChildren(...bars);
    section.querySelector('.st-prune-more').textContent =
      all > path.bars ? `the ${path.bars} heaviest of ${all}` : 'the heaviest first';
  };

  const drawRing = (section, state) => {
    const ring = section.querySelector('.st-prune-ring');
    const bar = state.channel === null ? null : section.querySelector(`.st-prune-bars > input[value="${state.channel}"]`);
    const place = bar && placesOf(section)[state.channel];
    if (bar) bar.checked = true;
    ring.classList.toggle('st-prune-shown', Boolean(place));
    if (!place) return;
    ring.setAttribute('cx', place[0]);
    ring.setAttribute('cy', place[1]);
  };

  const drawPath = (section, state) => {
    const slider = section.querySelector('.st-prune-moment'), {path} = state.data;
    if (!slider) return;
    const moment = momentOf(state), last = path.steps.length - 1, places = placesOf(section);
    slider.parentElement.classList.toggle('st-prune-quiet', last < 1);
    slider.value = moment;
    slider.setAttribute('aria-valuetext', path.words[moment]);
    drawPlane(section, path, moment, places);
    drawBars(section, path, moment, places.length);
    drawRing(section, state);
    const across = (100 * moment / Math.max(1, last)).toFixed(2);
    section.querySelectorAll('.st-prune-at').forEach(line => line.setAttribute('d', `M${across} 0V100`));
    section.querySelector('.st-prune-moment-words').textContent = path.words[moment];
  };

  const ticks = (place, side, marks) => place.replaceChildren(...marks.map(([at, text]) => {
    const mark = document.createElement('span');
    mark.style[side] = `${at}%`;
    mark.textContent = text;
    return mark;
  }));

  const drawDecay = (section, state) => {
    const chart = section.querySelector('.st-prune-large'), {decay} = state.data;
    if (!chart) return;
    const slider = section.querySelector('.st-prune-decay'), box = section.querySelector('.st-prune-log');
    const chosen = decay.names.indexOf(state.points), index = chosen < 0 ? decay.names.length - 1 : chosen;
    const frame = decay.frames[index][state.log ? 1 : 0];
    box.parentElement.classList.remove('st-prune-quiet');
    box.checked = state.log;
    if (slider) {
      slider.parentElement.classList.remove('st-prune-quiet');
      slider.value = index;
      slider.setAttribute('aria-valuetext', decay.names[index]);
      section.querySelector('.st-prune-points').textContent = decay.names[index];
    }
    frame.lines.forEach((line, rule) => chart.querySelector(`.st-prune-c${rule}`).setAttribute('d', line));
    frame.fits.forEach((line, fit) => {
      chart.querySelector(`.st-prune-fit${fit}`).setAttribute('d', line);
      section.querySelector(`.st-prune-r${fit}`).textContent = decay.r2[index][fit];
    });
    ticks(chart.querySelector('.st-prune-x'), 'left', frame.x);
    ticks(chart.querySelector('.st-prune-y'), 'top', frame.y);
    chart.querySelector('svg').setAttribute('aria-label', `error against channels kept: ${frame.words}`);
    section.querySelector('.st-prune-decay-words').textContent = frame.words;
    const here = section.querySelector('.st-prune-here');
    if (here) here.style.left = `${decay.at[index]}%`;
  };

  const draw = section => {
    const state = stateOf(section);
    drawPath(section, state);
    drawDecay(section, state);
  };

  root.addEventListener('input', event => {
    const asked = event.target, section = asked.closest('.st-prune');
    if (!section) return;
    const state = stateOf(section), {path, decay} = state.data;
    if (asked.matches('.st-prune-moment')) {
      const last = Number(asked.value) === path.steps.length - 1;
      state.step = last ? null : path.steps[Number(asked.value)];
      drawPath(section, state);
    } else if (asked.matches('.st-prune-decay, .st-prune-log')) {
      if (asked.type === 'range') state.points = decay.names[Number(asked.value)];
      else state.log = asked.checked;
      drawDecay(section, state);
    } else if (asked.type === 'radio') {
      state.channel = asked.value;
      drawRing(section, state);
    }
  });

  const refresh = () => root.querySelectorAll('.st-prune').forEach(draw);
  refresh();
  return refresh;
}
