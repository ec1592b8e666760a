// A network that grows: the two sliders of each, and what was chosen, kept while the picture is drawn anew.
function studioNetwork(root) {
  const states = new Map();
  const STEPS = 200;
  const powers = {'-': '⁻', 0: '⁰', 1: '¹', 2: '²', 3: '³', 4: '⁴', 5: '⁵', 6: '⁶', 7: '⁷', 8: '⁸', 9: '⁹'};

  // Three digits, as people write them: the same words as in the page that came without this script.
  const number = value => {
    const size = Math.abs(value);
    if (size && (size < 1e-4 || size >= 1e6)) {
      const [digits, power] = value.toExponential(2).split('e');
      const raised = [...String(Number(power))].map(sign => powers[sign]).join('');
      return `${Number(digits)}·10${raised}`.replace('-', '−');
    }
    const text = size >= 100 ? Math.round(value).toLocaleString('en-US') : String(Number(value.toPrecision(3)));
    return text.replace('-', '−');
  };

  const stateOf = section => {
    const group = section.dataset.group;
    if (!states.has(group)) states.set(group, {chosen: null, budget: null, eps: null, text: '', data: null});
    const state = states.get(group);
    if (state.text !== section.dataset.net) {
      state.text = section.dataset.net;
      state.data = JSON.parse(state.text);
      const rate = ([, , gain, cost]) => cost > 0 ? gain / cost : -Infinity;
      state.sorted = [...state.data.choices].sort((one, other) =>
        rate(one) < rate(other) ? -1 : rate(one) > rate(other) ? 1 : one[2] - other[2]);
      state.whole = state.data.choices.reduce((sum, [, , , cost]) => sum + cost, 0);
    }
    return state;
  };

  // The largest fall per cost first, those that do not fit left out: that solves the knapsack up to a part of one
  // split. The largest single fall and what fits beside it are preferred where they promise more.
  const filled = (order, room) => {
    let spent = 0;
    return order.filter(choice => spent + choice[3] <= room && ((spent += choice[3]), true));
  };
  const gainOf = chosen => chosen.reduce((total, choice) => total + choice[2], 0);
  const affordable = (sorted, budget) => {
    const room = budget * (1 + 1e-9), fitting = sorted.filter(choice => choice[3] <= room);
    if (!fitting.length) return [];
    const largest = fitting.reduce((one, other) => other[2] < one[2] ? other : one);
    const plain = filled(fitting, room);
    const other = filled([largest, ...fitting.filter(choice => choice !== largest)], room);
    return gainOf(other) < gainOf(plain) ? other : plain;
  };

  const price = (cost, unit) => `${number(cost)} ${cost === 1 ? unit.replace(/s$/, '') : unit}`;

  const drawBudget = (section, state) => {
    const slider = section.querySelector('.st-net-budget');
    if (!slider || !state.sorted.length) return;
    slider.parentElement.classList.remove('st-net-quiet');
    const {about, budget, unit} = state.data;
    const moved = state.budget !== null;
    const most = moved ? state.whole * state.budget / STEPS : budget;
    slider.value = moved ? state.budget : Math.round(STEPS * Math.min(1, budget / (state.whole || 1)));
    const chosen = affordable(state.sorted, most);
    const line = chosen.map(([x, y]) => `M${x} ${y}h.01`).join('');
    section.querySelectorAll('.st-net-picked').forEach(path => path.setAttribute('d', line));
    const cost = chosen.reduce((total, choice) => total + choice[3], 0);
    const words = `A budget of ${price(most, unit)} pays ${about}${chosen.length.toLocaleString('en-US')} ` +
      `split${chosen.length === 1 ? '' : 's'}: cost ${price(cost, unit)}, ` +
      `predicted change of the loss ${number(gainOf(chosen))} × eps².`;
    slider.nextElementSibling.textContent = number(most);
    section.querySelector('.st-net-budget-words').textContent = words;
    slider.setAttribute('aria-valuetext', words);
  };

  const drawEps = (section, state) => {
    const slider = section.querySelector('.st-net-eps'), curve = state.data.curve;
    if (!slider || !curve.end) return;
    slider.parentElement.classList.remove('st-net-quiet');
    const eps = state.eps === null ? curve.eps : curve.end * state.eps / STEPS;
    slider.value = state.eps === null ? Math.round(STEPS * eps / curve.end) : state.eps;
    const change = curve.curvature * eps ** 2;
    const x = curve.left + curve.width * eps / curve.end;
    const y = curve.top + curve.height * (curve.high - change) / (curve.high - curve.low);
    const now = section.querySelector('.st-net-now');
    now.setAttribute('cx', x);
    now.setAttribute('cy', y);
    section.querySelector('.st-net-at').setAttribute('d', `M${x} ${curve.top}V${curve.top + curve.height}`);
    slider.nextElementSibling.textContent = number(eps);
    let words = `At eps ${number(eps)} the predicted change is ${number(change)}.`;
    if (curve.probes.length) {
      const [near, seen] = curve.probes.reduce((a, b) => Math.abs(b[0] - eps) < Math.abs(a[0] - eps) ? b : a);
      const said = curve.curvature * near ** 2;
      const ratio = state.data.approximate || !said ? '' : `, ${number(seen / said)} of the prediction there`;
      words += ` Measured at eps ${number(near)}: ${number(seen)}${ratio}.`;
    }
    section.querySelector('.st-net-eps-words').textContent = words;
    slider.setAttribute('aria-valuetext', words);
  };

  const draw = section => {
    const state = stateOf(section);
    drawBudget(section, state);
    drawEps(section, state);
  };

  root.addEventListener('input', event => {
    const slider = event.target, section = slider.closest('.st-net');
    if (!section || slider.type !== 'range') return;
    stateOf(section)[slider.classList.contains('st-net-eps') ? 'eps' : 'budget'] = Number(slider.value);
    draw(section);
  });
  root.addEventListener('change', event => {
    const section = event.target.closest('.st-net');
    if (section && event.target.type === 'radio') stateOf(section).chosen = event.target.value;
  });

  const refresh = () => root.querySelectorAll('.st-net').forEach(section => {
    const state = stateOf(section);
    section.querySelectorAll('.st-net-field > input').forEach(input => {
      const wanted = input.value === state.chosen;
      if (input.checked !== wanted) input.checked = wanted;
    });
    draw(section);
  });
  refresh();
  return refresh;
}
