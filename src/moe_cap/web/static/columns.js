// How a row looks in AG Grid: cells, order, tooltips, theme. Text reaches the page through textContent only.
(() => {
  "use strict";

  const element = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name in made && typeof value !== "string") made[name] = value;
      else made.setAttribute(name === "className" ? "class" : name, value);
    }
    made.append(...children);
    return made;
  };

  // Fixed digits; two significant ones where the fixed ones would hide the value (board/columns.py, show_number).
  const showNumber = (value, decimals) => {
    if (value !== 0 && Math.abs(value) < 10 ** (1 - decimals) && !Number.isInteger(value)) return String(Number(value.toPrecision(2)));
    return value.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
  };

  // Invalid rows and unknown values are last in both directions: neither is ever ranked.
  const compare = (a, b, nodeA, nodeB, descending) => {
    const last = descending ? -1 : 1;
    const [validA, validB] = [nodeA.data.valid, nodeB.data.valid];
    if (validA !== validB) return validA ? -last : last;
    if (a == null || b == null) return a == null ? (b == null ? 0 : last) : -last;
    return typeof a === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true, sensitivity: "base" });
  };

  const link = (href, text, outside) => {
    const made = element("a", { href }, text);
    if (outside) {
      made.target = "_blank";
      made.rel = "noopener noreferrer";
    }
    return made;
  };

  const CELLS = {
    model: ({ data, value }) => {
      const cell = element("span", { className: "cap-model" }, link(`result?id=${encodeURIComponent(data.result)}`, value));
      if (!data.valid) cell.append(element("span", { className: "cap-badge cap-bad" }, "invalid"));
      // what is noted of a reported row is about its source, whose badge says so
      if (data.warnings && data.kind === "measured") cell.append(element("span", { className: "cap-warned", role: "img", "aria-label": `Warning: ${data.warnings}` }));
      return cell;
    },
    kind: ({ data, value }) => {
      if (value !== "reported") return element("span", { className: "cap-badge cap-good" }, value);
      const cite = link(data.citation_url, `reported ↗`, true);
      cite.className = "cap-badge cap-cited";
      return cite;
    },
    cap_class: ({ value }) => element("span", { className: `cap-class cap-class-${value}` }, value),
  };

  const spreadOf = (column, data) => (column.spread ? data[column.spread.field] : null);

  // Whether a row's 95 % interval meets that of the best row in sight (docs/results.md): scores of one task only.
  const tiesWithBest = (column, data, api) => {
    if (!data.valid || column.better === "neither") return false;
    const { field } = column;
    let best = null;
    api.forEachNodeAfterFilter(({ data: other }) => {
      if (!other.valid || other[field] == null || (field === "accuracy" && other.task !== data.task)) return;
      if (best == null || (column.better === "lower" ? other[field] < best[field] : other[field] > best[field])) best = other;
    });
    if (best == null || best === data) return false;
    const halves = (spreadOf(column, data) + (spreadOf(column, best) ?? 0)) * column.spread.to_95;
    return Math.abs(best[field] - data[field]) <= halves;
  };

  const spreadTip = (column, data, api) => {
    const spread = spreadOf(column, data);
    if (spread == null) return null;
    const tie = tiesWithBest(column, data, api) ? " It overlaps the best one shown: a tie." : "";
    return `± ${showNumber(spread, column.decimals)} ${column.unit}: ${column.spread.what}.${tie}`;
  };

  const modelTip = (data, value) => {
    if (!data.valid) return `Invalid, not ranked: ${data.invalid}`;
    return data.warnings ? `${value}. Warning: ${data.warnings}` : value;
  };

  const tooltip = (shown) => ({ data, value, api }) => {
    const { field } = shown;
    if (value == null) return data.missing[field] || "not part of this record";
    if (field === "model") return modelTip(data, value);
    if (field === "kind" && data.citation_text) return `${data.citation_text}, ${data.citation_place}`;
    if (field === "cap_class") return data.cap_class_reason;
    if (["hardware", "load", "engine", "revision", "quantisation", "validity"].includes(field)) return String(value);
    return spreadTip(shown, data, api);
  };

  const renderCell = (column) => (params) => {
    if (params.value == null) return element("span", { className: "cap-na" }, "n/a");
    if (CELLS[column.field]) return CELLS[column.field](params);
    const text = params.valueFormatted ?? String(params.value);
    const spread = spreadOf(column, params.data);
    if (spread == null) return text;
    return element("span", {}, text, element("small", { className: "cap-spread" }, ` ± ${showNumber(spread, column.decimals)}`));
  };

  const columnDefinition = (column, hidden) => ({
    colId: column.field,
    field: column.field,
    headerName: column.heading,
    headerTooltip: column.help,
    tooltipValueGetter: tooltip(column),
    cellRenderer: renderCell(column),
    valueFormatter: column.kind === "number" ? ({ value }) => (value == null ? "n/a" : showNumber(value, column.decimals)) : undefined,
    type: column.kind === "number" ? "rightAligned" : undefined,
    filter: column.kind === "number" ? "agNumberColumnFilter" : "agTextColumnFilter",
    sortingOrder: column.better === "lower" ? ["asc", "desc", null] : column.kind === "number" ? ["desc", "asc", null] : ["asc", "desc", null],
    pinned: column.field === "model" ? "left" : null,
    lockVisible: column.field === "model",
    width: column.field === "model" && innerWidth < 640 ? 138 : column.width + (column.spread ? 34 : 0),
    hide: hidden,
    comparator: compare,
  });

  // Every colour is a token of cap.css, so that light and dark need nothing here.
  const theme = () =>
    agGrid.themeQuartz.withParams({
      fontFamily: "inherit",
      fontSize: 14,
      headerFontSize: 13,
      headerFontWeight: 700,
      rowHeight: 40,
      headerHeight: 46,
      cellHorizontalPadding: 12,
      backgroundColor: "var(--cap-surface)",
      foregroundColor: "var(--cap-ink)",
      headerBackgroundColor: "var(--cap-sunken)",
      headerTextColor: "var(--cap-muted)",
      borderColor: "var(--cap-line)",
      rowHoverColor: "var(--cap-sunken)",
      selectedRowBackgroundColor: "var(--cap-accent-soft)",
      accentColor: "var(--cap-accent-strong)",
      chromeBackgroundColor: "var(--cap-sunken)",
      tooltipBackgroundColor: "var(--cap-tip)",
      tooltipTextColor: "var(--cap-tip-ink)",
      menuBackgroundColor: "var(--cap-surface)",
      wrapperBorderRadius: 10,
      browserColorScheme: "inherit",
    });

  window.capColumns = { element, columnDefinition, theme };
})();
