//! The free pages in the order of their reuse: a list linked through the pages, so that any of them can leave it.

/// Pages of a pool, each at most once.
#[derive(Debug)]
pub(crate) struct FreeList {
    /// `[num_pages + 1]` neighbours of each page in the list. The last entry is the list's own: its neighbours are the last
    /// and the first page. A page that is not in the list is its own neighbour.
    links: Vec<Link>,
    len: usize,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    before: u32,
    after: u32,
}

impl FreeList {
    /// All pages, the first of which is taken first.
    pub fn all(num_pages: usize) -> Self {
        let own = |page| Link { before: page, after: page };
        let mut list = Self { links: (0..=num_pages as u32).map(own).collect(), len: 0 };
        (0..num_pages as u32).for_each(|page| list.push_back(page));
        list
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// The page that is to be reused first.
    pub fn pop_front(&mut self) -> Option<u32> {
        let page = self.links[self.end() as usize].after;
        (page != self.end()).then(|| {
            self.remove(page);
            page
        })
    }

    /// Adds a page to be reused before all others.
    pub fn push_front(&mut self, page: u32) {
        self.insert_before(page, self.links[self.end() as usize].after);
    }

    /// Adds a page to be reused after all others.
    pub fn push_back(&mut self, page: u32) {
        self.insert_before(page, self.end());
    }

    /// Takes a page out of the list, wherever it is.
    pub fn remove(&mut self, page: u32) {
        let Link { before, after } = self.links[page as usize];
        assert_ne!(before, page, "page {page} is not free");
        self.links[before as usize].after = after;
        self.links[after as usize].before = before;
        self.links[page as usize] = Link { before: page, after: page };
        self.len -= 1;
    }

    /// The pages in the order of their reuse.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        let next = |&page: &u32| {
            let after = self.links[page as usize].after;
            (after != self.end()).then_some(after)
        };
        std::iter::successors(next(&self.end()), next)
    }

    fn end(&self) -> u32 {
        self.links.len() as u32 - 1
    }

    fn insert_before(&mut self, page: u32, after: u32) {
        assert_eq!(self.links[page as usize].before, page, "page {page} is free already");
        let before = self.links[after as usize].before;
        self.links[page as usize] = Link { before, after };
        self.links[before as usize].after = page;
        self.links[after as usize].before = page;
        self.len += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_leave_in_order_or_from_the_middle() {
        let mut list = FreeList::all(4);
        let check = |list: &FreeList, expect: &[u32]| {
            assert_eq!((list.iter().collect::<Vec<_>>(), list.len()), (expect.to_vec(), expect.len()));
        };
        check(&list, &[0, 1, 2, 3]);
        list.remove(2);
        assert_eq!(list.pop_front(), Some(0));
        check(&list, &[1, 3]);
        list.push_back(0);
        list.push_front(2);
        check(&list, &[2, 1, 3, 0]);
        list.remove(0);
        list.remove(2);
        check(&list, &[1, 3]);
        assert_eq!([(); 3].map(|()| list.pop_front()), [Some(1), Some(3), None]);
        list.push_front(3);
        check(&list, &[3]);
        check(&FreeList::all(0), &[]);
    }

    #[test]
    #[should_panic(expected = "page 1 is free already")]
    fn a_page_is_free_once() {
        FreeList::all(2).push_front(1);
    }

    #[test]
    #[should_panic(expected = "page 1 is not free")]
    fn a_page_is_taken_once() {
        let mut list = FreeList::all(2);
        list.remove(1);
        list.remove(1);
    }
}
