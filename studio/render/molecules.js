// Conformers in three dimensions: a viewer is mounted once a section; later only its models move, and all choices stay.
function studioMolecules(root, load) {
  const decks = [];
  const views = globalThis.studioViews ??= new Set();
  const calm = matchMedia('(prefers-reduced-motion: reduce)');
  const LOOKS = {
    stick: {stick: {radius: 0.15}},
    ball: {stick: {radius: 0.11}, sphere: {scale: 0.25}},
    sphere: {sphere: {scale: 1}},
    line: {stick: {radius: 0.035}},
  };
  const THIN = 0.05, FINE = 0.042, MANY = 8, MARGIN = 1.1, CAMERA = 150, FIELD = 20, TURN = 12, GAP = 80, CALM = 450;
  let linking = false;

  const part = (deck, name) => deck.section.querySelector(`.st-mol-${name}`);
  const act = (deck, name) => deck.section.querySelector(`[data-act="${name}"]`);
  const chosenOf = deck => {
    const n = deck.data.positions.length;
    return deck.chosen !== null && deck.chosen < n ? deck.chosen : deck.data.order[0];
  };
  const momentOf = deck => deck.moment === null ? null : Math.min(deck.moment, deck.data.path.length - 2);

  // The words and the state of the controls.
  const say = deck => {
    const {data} = deck, n = data.positions.length;
    if (!n) return;
    const chosen = chosenOf(deck), place = data.order.indexOf(chosen), moment = momentOf(deck);
    const energy = data.energies[chosen], told = data.captions[chosen];
    const words = told || (energy === null ? 'no energy' : `${energy.toFixed(2)} kcal/mol above the lowest`);
    const line = n > 1 ? `${place + 1} of ${n} · ${words}` : words;
    part(deck, 'words').textContent = line;
    const rank = part(deck, 'rank'), film = part(deck, 'moment');
    rank.max = n - 1;
    rank.value = place;
    rank.setAttribute('aria-valuetext', line);
    act(deck, 'back').disabled = place === 0;
    act(deck, 'on').disabled = place === n - 1;
    act(deck, 'one').setAttribute('aria-pressed', !deck.all);
    act(deck, 'all').setAttribute('aria-pressed', deck.all);
    deck.section.classList.toggle('st-mol-over', deck.all && n > 1);
    part(deck, 'style').value = deck.look;
    part(deck, 'hydrogens').checked = deck.hydrogens;
    film.max = Math.max(0, data.path.length - 1);
    film.value = moment === null ? film.max : moment;
    const where = moment === null ? 'end' : `${moment + 1} of ${data.path.length}`;
    film.nextElementSibling.textContent = where;
    film.setAttribute('aria-valuetext', where);
    act(deck, 'play').textContent = deck.timer === null ? 'Play' : 'Pause';
    part(deck, 'bar').classList.remove('st-mol-quiet');
    deck.section.querySelectorAll('.st-mol-side input').forEach(input => {
      input.checked = Number(input.value) === chosen;
    });
  };

  const atomsOf = ({symbols, bonds, orders, tints}) => {
    const atoms = symbols.map((elem, index) => (
      {elem, index, serial: index, x: 0, y: 0, z: 0, bonds: [], bondOrder: [], color: tints[elem]}));
    bonds.forEach(([one, other], index) => {
      for (const [here, there] of [[one, other], [other, one]]) {
        atoms[here].bonds.push(there);
        atoms[here].bondOrder.push(orders[index]);
      }
    });
    return atoms;
  };

  // Puts the models where the data say, as they are to be seen; the camera is left alone.
  const move = deck => {
    const {data, viewer} = deck, moment = momentOf(deck), n = data.positions.length;
    const places = moment === null ? data.positions : data.path[moment];
    const key = JSON.stringify([data.symbols, data.bonds, data.orders]), fresh = deck.key !== key;
    if (fresh || deck.models.length !== n) {
      viewer.removeAllModels();
      const atoms = atomsOf(data);
      deck.models = places.map(() => {
        const model = viewer.addModel();
        model.addAtoms(atoms);
        return model;
      });
      deck.key = key;
    }
    const chosen = chosenOf(deck);
    deck.models.forEach((model, index) => {
      const flat = places[index];
      model.selectedAtoms({}).forEach((atom, at) => {
        atom.x = flat[3 * at] / 1000;
        atom.y = flat[3 * at + 1] / 1000;
        atom.z = flat[3 * at + 2] / 1000;
      });
      const own = index === chosen, shown = own || deck.all;
      const thin = {stick: {radius: n > MANY ? FINE : THIN, color: data.colours[index], singleBonds: true}};
      model.setStyle({}, !shown ? {} : own ? LOOKS[deck.look] : thin);
      if (shown && !(own && deck.hydrogens)) {
        const bare = data.symbols.some(symbol => symbol !== 'H');
        if (bare) model.setStyle({elem: 'H'}, {});
      }
    });
    if (fresh) aim(deck);
    viewer.render();
  };

  const linked = deck => [...views].filter(other =>
    other !== deck && other.viewer && other.section.isConnected && deck.section.closest('.st-sides, .st-page') &&
    other.section.closest('.st-sides, .st-page') === deck.section.closest('.st-sides, .st-page'));

  const rotated = ([x, y, z], [a, b, c, w]) => {
    const [p, q, r] = [2 * (b * z - c * y), 2 * (c * x - a * z), 2 * (a * y - b * x)];
    return [x + w * p + b * r - c * q, y + w * q + c * p - a * r, z + w * r + a * q - b * p];
  };
  // A view that just holds every conformer, as 3Dmol.js writes it: the middle, the depth, and the turn.
  const firstLook = deck => {
    const {positions, turn} = deck.data, low = [Infinity, Infinity, Infinity], high = low.map(value => -value);
    for (const flat of positions) {
      for (let at = 0; at < flat.length; at += 3) {
        rotated(flat.slice(at, at + 3), turn).forEach((value, axis) => {
          low[axis] = Math.min(low[axis], value / 1000);
          high[axis] = Math.max(high[axis], value / 1000);
        });
      }
    }
    const stage = part(deck, 'stage'), half = low.map((value, axis) => (high[axis] - value) / 2 + MARGIN);
    const wide = Math.max(half[1], half[0] * stage.clientHeight / Math.max(stage.clientWidth, 1));
    const middle = rotated(low.map((value, axis) => -(value + high[axis]) / 2), turn.map((v, at) => at < 3 ? -v : v));
    return [...middle, CAMERA - wide / Math.tan(Math.PI * FIELD / 360) - 0.7 * half[2] + MARGIN, ...turn];
  };

  // The first look: from where the molecule is flattest, or as a twin beside it is looked at.
  const aim = (deck, alone = false) => {
    linking = true;
    const twin = alone ? null : linked(deck).find(other => other.key === deck.key);
    deck.viewer.zoomTo();
    deck.viewer.setView(twin ? twin.viewer.getView() : firstLook(deck));
    linking = false;
    if (alone) follow(deck);
    deck.camera = String(deck.viewer.getView());
  };

  // Cameras side by side turn together; those of two different molecules keep their own distance.
  const follow = deck => {
    const view = deck.viewer.getView();
    if (linking || String(view) === deck.camera) return;
    linking = true;
    deck.camera = String(view);
    for (const other of linked(deck)) {
      const own = other.viewer.getView();
      other.viewer.setView(other.key === deck.key ? view : [...own.slice(0, 4), ...view.slice(4)]);
      other.camera = String(other.viewer.getView());
    }
    linking = false;
  };

  const draw = deck => {
    say(deck);
    if (deck.viewer && deck.data.positions.length) move(deck);
    else mount(deck);
  };

  const able = () => {
    const canvas = document.createElement('canvas');
    return Boolean(canvas.getContext('webgl2') || canvas.getContext('webgl'));
  };

  const mount = async deck => {
    const stage = part(deck, 'stage');
    if (deck.mounting || !deck.data.positions.length || !stage.offsetWidth) return;
    deck.mounting = true;
    const wait = part(deck, 'wait');
    wait.textContent = 'Loading the 3-D view …';
    try {
      if (!able()) throw new Error('no WebGL');
      const library = await load();
      const host = document.createElement('div');
      host.className = 'st-mol-host';
      stage.prepend(host);
      deck.viewer = library.createViewer(host, {backgroundAlpha: 0, antialias: true, disableFog: true});
      deck.viewer.setViewChangeCallback(() => follow(deck));
      views.add(deck);
      wait.remove();
      act(deck, 'reset').classList.remove('st-mol-quiet');
    } catch (error) {
      wait.textContent = 'This browser shows no 3-D view (no WebGL): the picture and the SDF can be saved instead.';
      return;
    }
    draw(deck);
  };

  // A choice here is a choice in the members picture of the same group, and the other way round.
  const twins = deck => {
    const page = deck.section.closest('.st-page');
    return [...(page || document).querySelectorAll('.st-field > input[type="radio"]')].filter(input => {
      const plain = input.value.startsWith('plain'), same = input.name === `member-${deck.group}`;
      return plain ? page && decks.length > 1 && !same : same;
    });
  };
  const choose = (deck, index) => {
    deck.chosen = index;
    draw(deck);
    const twin = twins(deck).find(input => input.value.replace('plain', '') === String(index));
    if (twin && !twin.checked) {
      twin.checked = true;
      twin.dispatchEvent(new Event('change', {bubbles: true}));
    }
  };
  document.addEventListener('change', event => {
    if (!root.isConnected || !event.target.matches?.('.st-field > input[type="radio"]')) return;
    const deck = decks.find(one => twins(one).includes(event.target));
    const index = Number(event.target.value.replace('plain', ''));
    if (deck && index !== deck.chosen && index < deck.data.positions.length) {
      deck.chosen = index;
      draw(deck);
    }
  });

  const step = (deck, by) => {
    const {order} = deck.data, place = order.indexOf(chosenOf(deck)) + by;
    if (place >= 0 && place < order.length) choose(deck, order[place]);
  };
  const halt = deck => {
    clearTimeout(deck.timer);
    deck.timer = null;
  };
  const next = deck => {
    const at = momentOf(deck);
    deck.moment = at === null ? 0 : at + 1;
    if (deck.moment >= deck.data.path.length - 1) {
      deck.moment = null;
      halt(deck);
    } else deck.timer = setTimeout(() => next(deck), calm.matches ? CALM : GAP);
    draw(deck);
  };
  const acts = {
    back: deck => step(deck, -1),
    on: deck => step(deck, 1),
    one: deck => { deck.all = false; draw(deck); },
    all: deck => { deck.all = true; draw(deck); },
    reset: deck => { if (deck.viewer) { aim(deck, true); deck.viewer.render(); } },
    play: deck => {
      if (deck.timer === null) return next(deck);
      halt(deck);
      draw(deck);
    },
  };
  const turn = (deck, angle, axis) => {
    deck.viewer?.rotate(angle, axis);
  };
  const keys = {
    ArrowLeft: deck => step(deck, -1),
    ArrowRight: deck => step(deck, 1),
    '+': deck => deck.viewer?.zoom(1.2),
    '-': deck => deck.viewer?.zoom(1 / 1.2),
    'Shift+ArrowLeft': deck => turn(deck, -TURN, 'vy'),
    'Shift+ArrowRight': deck => turn(deck, TURN, 'vy'),
    'Shift+ArrowUp': deck => turn(deck, -TURN, 'vx'),
    'Shift+ArrowDown': deck => turn(deck, TURN, 'vx'),
  };

  const deckOf = event => decks.find(deck => deck.section === event.target.closest?.('.st-mol'));
  root.addEventListener('click', event => {
    const deck = deckOf(event), button = event.target.closest('[data-act]');
    if (!deck) return;
    if (button) return acts[button.dataset.act](deck);
    const row = event.target.closest('[data-conformer]');
    if (row) choose(deck, Number(row.dataset.conformer));
  });
  root.addEventListener('input', event => {
    const deck = deckOf(event), kind = event.target.classList;
    if (!deck) return;
    if (kind.contains('st-mol-rank')) return choose(deck, deck.data.order[Number(event.target.value)]);
    if (kind.contains('st-mol-moment')) {
      halt(deck);
      const at = Number(event.target.value);
      deck.moment = at >= deck.data.path.length - 1 ? null : at;
    } else if (kind.contains('st-mol-style')) deck.look = event.target.value;
    else if (kind.contains('st-mol-hydrogens')) deck.hydrogens = event.target.checked;
    else if (event.target.type === 'radio') return choose(deck, Number(event.target.value));
    draw(deck);
  });
  root.addEventListener('keydown', event => {
    const deck = deckOf(event), name = `${event.shiftKey && event.key !== '+' ? 'Shift+' : ''}${event.key}`;
    if (!deck || !event.target.classList.contains('st-mol-stage') || !keys[name]) return;
    event.preventDefault();
    keys[name](deck);
  });
  // The wheel scrolls the page until the view has been clicked; then it zooms.
  root.addEventListener('wheel', event => {
    const stage = event.target.closest?.('.st-mol-stage');
    if (stage && !stage.contains(document.activeElement) && !event.ctrlKey) event.stopPropagation();
  }, {capture: true, passive: true});
  root.addEventListener('pointerdown', event => {
    event.target.closest?.('.st-mol-stage')?.focus({preventScroll: true});
  });

  const adopt = section => {
    const deck = {
      section, data: null, text: '', group: '', viewer: null, mounting: false, models: [], key: '', parts: {}, camera: '',
      chosen: null, all: false, look: 'ball', hydrogens: true, moment: null, timer: null,
    };
    decks.push(deck);
    new ResizeObserver(() => mount(deck)).observe(part(deck, 'stage'));
    read(deck);
  };
  const read = deck => {
    const {dataset} = deck.section;
    if (deck.text !== dataset.mol) {
      const before = deck.data;
      deck.text = dataset.mol;
      deck.data = JSON.parse(deck.text);
      if (before && String(before.symbols) !== String(deck.data.symbols)) deck.chosen = null;
      if (deck.data.path.length < 2) {
        halt(deck);
        deck.moment = null;
      }
    }
    deck.group = dataset.group;
    draw(deck);
  };

  // Takes over what is new of a section; its controls and its canvas stay the very same elements.
  const patch = (deck, fresh) => {
    deck.section.className = fresh.className;
    Object.assign(deck.section.dataset, fresh.dataset);
    fresh.querySelectorAll('[data-part]').forEach(piece => {
      const name = piece.dataset.part, text = piece.innerHTML;
      if (deck.parts[name] === text) return;
      const old = deck.section.querySelector(`[data-part="${name}"]`), focused = old.contains(document.activeElement);
      const {scrollTop} = old.firstElementChild || {};
      old.innerHTML = text;
      if (old.firstElementChild && scrollTop) old.firstElementChild.scrollTop = scrollTop;
      deck.parts[name] = text;
      if (focused) deck.refocus = true;
    });
    read(deck);
    if (deck.refocus) deck.section.querySelector('.st-mol-side input:checked')?.focus({preventScroll: true});
    deck.refocus = false;
  };
  const show = html => {
    const fresh = document.createElement('template');
    fresh.innerHTML = html;
    const sections = [...fresh.content.querySelectorAll('.st-mol')];
    for (const deck of decks.splice(sections.length)) {
      halt(deck);
      views.delete(deck);
      deck.section.remove();
    }
    decks.forEach((deck, index) => patch(deck, sections[index]));
    if (!root.querySelector('.st-mol')) root.replaceChildren(...fresh.content.querySelectorAll('style'));
    for (const section of sections.slice(decks.length)) {
      root.append(section);
      adopt(section);
    }
  };
  root.querySelectorAll('.st-mol').forEach(adopt);
  return show;
}
