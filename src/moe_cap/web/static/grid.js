// The leaderboard: AG Grid over api/grid.json and the radar of its selected rows, with facets, a column chooser, an
// address that restores the view, and rows that appear while one looks.
(() => {
  "use strict";
  const MAX_SELECTED = 5;
  const COLUMNS_KEY = "cap-columns";
  const { element, columnDefinition, theme } = window.capColumns;

  const parseRows = (data) => {
    const fields = Object.keys(data.values);
    return Array.from({ length: data.count }, (_, index) => {
      const row = { missing: {} };
      for (const field of fields) row[field] = data.values[field][index];
      for (const [field, reasons] of Object.entries(data.missing)) if (reasons[index]) row.missing[field] = reasons[index];
      return row;
    });
  };

  class Board {
    constructor(root, radar) {
      this.root = root;
      this.radar = radar;
      this.picked = new Map(); // facet field -> Set of wanted values
      this.fresh = new Set(); // rows that appeared while one looked
      this.part = (name) => root.querySelector(`[data-cap="${name}"]`);
      this.query = new URLSearchParams(location.search);
      this.cost = this.query.get("cost") || "purchase";
      this.axes = this.query.getAll("axis");
    }

    async load() {
      const answer = await fetch("api/grid.json");
      if (!answer.ok) throw new Error(`the table answered ${answer.status}`);
      const data = await answer.json();
      this.rows = parseRows(data);
      this.facets = data.facets;
      return data;
    }

    async open() {
      const data = await this.load();
      this.columns = data.columns;
      for (const field of Object.keys(this.facets)) {
        const values = this.query.getAll(field).map((value) => data.aliases[field]?.[value.toLowerCase()] ?? value);
        if (values.length) this.picked.set(field, new Set(values));
      }
      this.makeGrid();
      this.drawFacets();
      this.drawChooser();
      this.connect();
      this.count();
      await this.draw();
      this.root.dataset.ready = "yes";
      window.capPage.watch("board", () => this.renew());
    }

    shownFields() {
      const asked = this.query.getAll("column");
      const kept = asked.length ? asked : JSON.parse(localStorage.getItem(COLUMNS_KEY) || "null");
      return new Set(kept || this.columns.filter((column) => column.visible).map((column) => column.field));
    }

    makeGrid() {
      const shown = this.shownFields();
      const wanted = new Set(this.query.getAll("row"));
      this.api = agGrid.createGrid(this.part("grid"), {
        theme: theme(),
        columnDefs: this.columns.map((column) => columnDefinition(column, column.field !== "model" && !shown.has(column.field))),
        rowData: this.rows,
        getRowId: ({ data }) => data.row,
        rowClassRules: { "cap-invalid": ({ data }) => !data.valid, "cap-fresh": ({ data }) => this.fresh.has(data.row) },
        rowSelection: { mode: "multiRow", checkboxes: true, headerCheckbox: false, enableClickSelection: true, enableSelectionWithoutKeys: true },
        selectionColumnDef: { pinned: "left", width: 44, resizable: false, suppressHeaderMenuButton: true },
        quickFilterText: this.query.get("q") || "",
        isExternalFilterPresent: () => this.picked.size > 0,
        doesExternalFilterPass: ({ data }) => [...this.picked].every(([field, values]) => values.has(data[field] ?? "n/a")),
        multiSortKey: "ctrl",
        animateRows: false,
        enableCellTextSelection: true,
        tooltipShowDelay: 250,
        tooltipShowMode: "standard",
        autoSizePadding: 8,
        defaultColDef: { resizable: true, suppressHeaderMenuButton: false, minWidth: 64 },
        onFilterChanged: () => this.count(),
        onSortChanged: () => this.remember(),
        onSelectionChanged: () => this.select(),
        onCellKeyDown: ({ event, column, data }) => {
          if (event.key === "Enter" && column?.getColId() === "model") location.href = `result?id=${encodeURIComponent(data.result)}`;
        },
        overlayNoRowsTemplate: '<span class="cap-empty">No system matches. Clear the search or a filter.</span>',
        onFirstDataRendered: () => this.restore(wanted),
      });
      this.part("search").value = this.query.get("q") || "";
    }

    restore(wanted) {
      const sort = this.query.getAll("sort").map((text, sortIndex) => {
        const [colId, direction] = text.split(":");
        return { colId, sort: direction === "asc" ? "asc" : "desc", sortIndex };
      });
      if (sort.length) this.api.applyColumnState({ state: sort });
      this.api.forEachNode((node) => wanted.has(node.id) && node.setSelected(true));
    }

    async renew() {
      const before = new Set(this.rows.map((row) => row.row));
      const data = await this.load();
      if (JSON.stringify(data.columns) !== JSON.stringify(this.columns)) {
        this.columns = data.columns;
        const shown = this.shownFields();
        this.api.setGridOption("columnDefs", this.columns.map((column) => columnDefinition(column, column.field !== "model" && !shown.has(column.field))));
        this.drawChooser();
      }
      const added = this.rows.filter((row) => !before.has(row.row));
      this.fresh = new Set(added.map((row) => row.row));
      this.api.setGridOption("rowData", this.rows);
      this.drawFacets();
      this.count();
      this.draw();
      if (added.length) this.part("news").textContent = `New: ${added[0].model}, ${added[0].engine ?? "engine not stated"}, ${added[0].precision}`;
    }

    count() {
      const shown = this.api.getDisplayedRowCount();
      const all = this.rows.length;
      this.part("count").textContent = shown === all ? `${all.toLocaleString("en-US")} rows` : `${shown.toLocaleString("en-US")} of ${all.toLocaleString("en-US")} rows`;
      this.part("clear").hidden = !(this.picked.size || this.part("search").value || this.api.isAnyFilterPresent());
      if (shown === 0) this.api.showNoRowsOverlay();
      else this.api.hideOverlay();
      this.remember();
    }

    select() {
      const nodes = this.api.getSelectedNodes();
      if (nodes.length > MAX_SELECTED) {
        nodes[0].setSelected(false); // the radar holds five: the first picked leaves
        return;
      }
      this.remember();
      this.draw();
    }

    // The newest request wins, however late an older one answers.
    async draw() {
      this.drawing?.abort();
      const drawing = (this.drawing = new AbortController());
      const query = new URLSearchParams({ cost: this.cost });
      for (const node of this.api.getSelectedNodes()) query.append("row", node.id);
      for (const axis of this.axes) query.append("axis", axis);
      try {
        const answer = await fetch(`api/radar.html?${query}`, { signal: drawing.signal });
        const text = await answer.text();
        if (!answer.ok) window.capPage.forget("board"); // the next look draws it
        if (!answer.ok || drawing.signal.aborted) return;
        window.capPage.anew(this.radar, () => (this.radar.innerHTML = text)); // escaped by the server's templates
      } catch (error) {
        if (error.name === "AbortError") return; // superseded
        if (error.name !== "TypeError") throw error;
        window.capPage.forget("board"); // the server is away
      }
    }

    // The address always restores what is seen.
    remember() {
      if (!this.api) return;
      const query = new URLSearchParams(location.search);
      const put = (name, values) => {
        query.delete(name);
        for (const value of values) query.append(name, value);
      };
      put("q", this.part("search").value ? [this.part("search").value] : []);
      for (const field of Object.keys(this.facets)) put(field, this.picked.get(field) || []);
      const sorted = this.api.getColumnState().filter((state) => state.sort).sort((a, b) => a.sortIndex - b.sortIndex);
      put("sort", sorted.map((state) => `${state.colId}:${state.sort}`));
      put("row", this.api.getSelectedNodes().map((node) => node.id));
      put("cost", this.cost === "purchase" ? [] : [this.cost]);
      put("axis", this.axes);
      const text = query.toString();
      history.replaceState(null, "", text ? `?${text}` : location.pathname);
    }

    connect() {
      this.radar.addEventListener("change", () => {
        this.cost = this.radar.querySelector("[name=cap-cost]:checked").value;
        this.axes = [...this.radar.querySelectorAll("[name=cap-axis]:checked")].map((box) => box.value);
        this.remember();
        this.draw();
      });
      this.part("search").addEventListener("input", (event) => this.api.setGridOption("quickFilterText", event.target.value));
      this.part("csv").addEventListener("click", () => this.save());
      this.part("clear").addEventListener("click", () => {
        this.picked.clear();
        this.part("search").value = "";
        this.api.setGridOption("quickFilterText", "");
        this.api.setFilterModel(null);
        this.filtered();
      });
    }

    // No cell draws the mark of an invalid row here, so its column goes along, chosen or not.
    save() {
      const fields = new Set(this.columns.map(({ field }) => field));
      const shown = this.api.getAllDisplayedColumns().map((column) => column.getColId()).filter((field) => fields.has(field));
      this.api.exportDataAsCsv({ fileName: "moe-cap-view.csv", columnKeys: [...new Set([...shown, "validity"])] });
    }

    filtered() {
      this.api.onFilterChanged();
      this.tellFacets();
    }

    drawFacets() {
      const menus = Object.keys(this.facets).map((field) => this.facet(field)).filter(Boolean);
      window.capPage.anew(this.part("facets"), () => this.part("facets").replaceChildren(...menus));
      this.tellFacets();
    }

    // What is picked, written into the menus that stand there: a box that is ticked keeps the focus.
    tellFacets() {
      for (const menu of this.part("facets").children) {
        const picked = this.picked.get(menu.dataset.field) || new Set();
        for (const box of menu.querySelectorAll("input")) box.checked = picked.has(box.value);
        const title = this.facets[menu.dataset.field];
        const summary = menu.querySelector("summary");
        summary.textContent = picked.size === 1 ? `${title}: ${[...picked][0]}` : picked.size ? `${title}: ${picked.size}` : title;
        summary.toggleAttribute("data-active", picked.size > 0);
      }
    }

    pick(field, value, wanted) {
      const picked = this.picked.get(field) || new Set();
      wanted ? picked.add(value) : picked.delete(value);
      picked.size ? this.picked.set(field, picked) : this.picked.delete(field);
      this.filtered();
    }

    facet(field) {
      const counts = new Map();
      for (const row of this.rows) counts.set(row[field] ?? "n/a", (counts.get(row[field] ?? "n/a") || 0) + 1);
      if (counts.size < 2 && !this.picked.has(field)) return null;
      const items = [...counts].sort(([a], [b]) => a.localeCompare(b)).map(([value, number]) => {
        const box = element("input", { type: "checkbox", value, "data-keep": `${field}=${value}` });
        box.addEventListener("change", () => this.pick(field, value, box.checked));
        return element("label", {}, box, element("span", {}, value), element("small", {}, String(number)));
      });
      const list = element("div", { className: "cap-pop", "data-keep": `${field} list` }, ...items);
      const heading = element("summary", { "data-keep": `${field} heading` });
      return element("details", { className: "cap-menu", "data-field": field, "data-keep": field }, heading, list);
    }

    drawChooser() {
      const groups = new Map();
      for (const column of this.columns) {
        if (column.field === "model") continue;
        const box = element("input", { type: "checkbox", checked: this.api.getColumn(column.field)?.isVisible() ?? false, "data-keep": column.field });
        box.addEventListener("change", () => {
          this.api.setColumnsVisible([column.field], box.checked);
          if (box.checked) this.api.ensureColumnVisible(column.field, "middle");
          const shown = this.columns.map(({ field }) => field).filter((field) => this.api.getColumn(field).isVisible());
          localStorage.setItem(COLUMNS_KEY, JSON.stringify(shown));
        });
        const label = element("label", { title: column.help }, box, element("span", {}, column.title), element("small", {}, column.unit));
        if (!groups.has(column.group)) groups.set(column.group, []);
        groups.get(column.group).push(label);
      }
      const reset = element("button", { type: "button", className: "cap-link", "data-keep": "reset" }, "Default columns");
      reset.addEventListener("click", () => {
        localStorage.removeItem(COLUMNS_KEY);
        for (const column of this.columns) this.api.setColumnsVisible([column.field], column.field === "model" || column.visible);
        this.drawChooser();
      });
      const sets = [...groups].map(([title, labels]) => element("fieldset", {}, element("legend", {}, title), ...labels));
      window.capPage.anew(this.part("columns"), () => this.part("columns").replaceChildren(...sets, reset));
    }
  }

  window.capBoard = {
    async mount(root) {
      window.capPage.paint();
      const board = new Board(root.querySelector(".cap-board"), root.querySelector("[data-radar]"));
      window.capBoard.current = board;
      await board.open();
    },
  };
})();
