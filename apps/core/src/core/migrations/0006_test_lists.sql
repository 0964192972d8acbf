-- What probes are asked to measure: the test lists, and the rules that say what of them is wanted most.

-- Written by `analysis update-test-lists`. An address is far shorter than an index entry may be: the import refuses
-- longer ones, and so does the table.
CREATE TABLE citizenlab (
    domain text NOT NULL,
    url text NOT NULL CHECK (octet_length(url) BETWEEN 1 AND 2000),
    cc text NOT NULL CHECK (cc = 'ZZ' OR cc ~ '^[a-z]{2}$'),
    category_code text NOT NULL CHECK (category_code ~ '^[A-Z]+$'),
    PRIMARY KEY (url, cc)
);
COMMENT ON TABLE citizenlab IS 'The test lists: what probes are asked to measure.';
COMMENT ON COLUMN citizenlab.cc IS 'Country of the list, in lower case; ZZ for the list of all countries.';
COMMENT ON COLUMN citizenlab.domain IS 'Network location of the URL, as in table fastpath.';

CREATE TABLE url_priorities (
    category_code text NOT NULL DEFAULT '*',
    cc text NOT NULL DEFAULT '*',
    domain text NOT NULL DEFAULT '*',
    url text NOT NULL DEFAULT '*' CHECK (octet_length(url) <= 2000),
    priority integer NOT NULL,
    PRIMARY KEY (category_code, cc, domain, url)
);
COMMENT ON TABLE url_priorities IS
    'Rules: the priority of a URL is the sum over all rules that match it. * matches everything.';

INSERT INTO url_priorities (category_code, priority)
SELECT unnest(string_to_array(categories, ' ')), priority FROM (VALUES
    ('NEWS POLR HUMR LGBT ANON COMT GRP', 100),
    ('MMED SRCH PUBH', 80),
    ('REL XED HOST ENV', 60),
    ('FILE CULTR IGO GOVT', 40),
    ('DATE HATE MILX PROV PORN GMB ALDR', 30),
    ('GAME MISC HACK ECON COMM CTRL', 20)
) AS defaults (categories, priority);
